"""The one exception that a person, not a programmer, has to mend, and how it is told."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in the params, the data or the files of a run.

    Its text is one line per problem: what is wrong, where, and what to do.
    """


@contextmanager
def told(interrupted: str = "interrupted") -> Iterator[None]:
    """Tells errors to people: a UserError becomes its lines on stderr and exit code 2, as does a
    file that cannot be read or written; Ctrl-C becomes the line `interrupted` and exit code 130.
    """
    try:
        yield
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
