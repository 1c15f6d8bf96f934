"""Python runs this before any other module of the project."""

import time

from stages.lib.core import interpreter
from stages.lib.core.errors import tell_while_importing

interpreter.use_that_of_dvc()
# Code that is written after this moment may be newer than what this process imports.
STARTED = time.time()
tell_while_importing()
