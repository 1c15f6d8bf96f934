"""Loads an ONNX file in one of the engines of core/engines.py."""

from collections.abc import Callable
from importlib import import_module

import numpy as np
import torch

from stages.lib.core.engines import Engine

# From images, uint8 [n, c, h, w], to logits, float32 [n, classes].
Execute = Callable[[np.ndarray], np.ndarray]


def load(
    engine: Engine, model: bytes, threads: int, name: str, *, spinning: bool = True
) -> Execute:
    """Loads a network.

    model: the bytes of an ONNX file of this project.
    threads: of the engine.
    name: of the network in errors.
    spinning: whether threads wait for work in a loop, which is faster but keeps a core busy.

    Raises UserError if the engine cannot load the network; some do when it is first executed.
    """
    module = import_module(f"stages.lib.engines.{engine.module}")
    return module.load(model, threads, name, spinning)


def logits(execute: Execute, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The logits of `images`, uint8 [n, c, h, w], computed in batches: float32 [n, classes]."""
    return torch.cat(
        [
            torch.from_numpy(execute(batch.cpu().contiguous().numpy()))
            for batch in images.split(batch_size)
        ]
    )
