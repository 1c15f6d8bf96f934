"""ONNX Runtime, loaded so that it reports to nobody. The only module that imports it first.

The wheels since 1.29 send usage events to their maker and leave a file in the temporary folder,
unless this variable stands before the library is loaded (its Privacy.md). Who wants that sets it
to 0.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
