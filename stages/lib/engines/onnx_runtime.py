"""Loads ONNX Runtime without telemetry. It is the only module that imports it first.

Its wheels since 1.29 send usage events to their maker and leave a file in the temporary folder,
unless this variable is set before the library is loaded (its Privacy.md). Set it to 0 to allow
that.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
