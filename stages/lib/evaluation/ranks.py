"""One network on several GPUs, or on several parts of the cores: data-parallel training by
torch.distributed, with NCCL on GPUs and gloo on CPUs.

`compute.ranks` processes, the ranks, run the whole stage, each with a share of every batch. They
draw the whole batch, so the images are the same for any number of ranks. torchrun starts and
watches them, from inside the stage. DistributedDataParallel is of no use here: it works neither
with torch.autograd.grad nor with functional_call. In a process that is no rank, nothing here
changes or costs anything.
"""

import itertools
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from stages.lib.core.errors import UserError
from stages.lib.core.params import LEAST_IMAGES
from stages.lib.evaluation import inference
from stages.lib.evaluation.samples import Samples

# Training steps between two questions whether it is time to save the state.
QUESTIONS = 50
_questions = itertools.count(1)
# A rank whose peer is gone waits for its end, so that torchrun sees first who failed first.
LAST_SECONDS = 10


class Share(NamedTuple):
    """This rank's share of a batch.

    part: its images in the batch.
    weight: of its mean loss in the batch's, 0…1; the sum over all ranks is 1.
    counted: those of its images that no rank before it has.
    """

    part: slice
    weight: float
    counted: slice


ALL, NONE = slice(None), slice(0)


def count() -> int:
    """The number of ranks that train together; 1 in a process that is no rank."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """The number of this rank, 0 for the first one and in a process that is no rank."""
    return dist.get_rank() if count() > 1 else 0


def _part(size: int) -> slice:
    """This rank's part of so many images, which are in the same order in all ranks."""
    return slice(size * number() // count(), size * (number() + 1) // count())


def share(size: int) -> Share:
    """This rank's share of a batch. Every rank gets the whole of a batch that is too small."""
    ranks = count()
    if ranks == 1:
        return Share(ALL, 1, ALL)
    if size < LEAST_IMAGES * ranks:
        return Share(ALL, 1 / ranks, NONE if number() else ALL)
    part = _part(size)
    return Share(part, (part.stop - part.start) / size, ALL)


def _summed(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The sums over all ranks, by one message for all tensors. Same dtype and device for all."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    try:
        dist.all_reduce(flat)
    except RuntimeError:
        time.sleep(LAST_SECONDS)
        raise
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def gradients(own: Sequence[torch.Tensor | None], weight: float) -> Sequence[torch.Tensor | None]:
    """The gradients of a whole batch's mean loss, from those of this rank's share of it.

    own: None where the loss does not depend on a parameter, for the same ones in all ranks.
    weight: that of Share.
    """
    if count() == 1:
        return own
    summed = iter(_summed([gradient * weight for gradient in own if gradient is not None]))
    return [None if gradient is None else next(summed) for gradient in own]


def totals(*own: torch.Tensor) -> Sequence[torch.Tensor]:
    """Sums of numbers over all ranks."""
    return own if count() == 1 else _summed([number.double() for number in own])


def _message(number: float) -> torch.Tensor:
    """A number for the other ranks, where this rank computes."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return torch.tensor([number], dtype=torch.float64, device=device)


def wait() -> None:
    """Returns when all ranks have come here."""
    if count() > 1:
        float(_summed([_message(0)])[0])


def agreed(own: float) -> bool:
    """Whether all ranks have the same number."""
    if count() == 1:
        return True
    sums = [float(_summed([_message(number)])[0]) for number in (own, own**2)]
    return sums == [count() * own, count() * own**2]


def first_says(answer: bool) -> bool:
    """The first rank's answer to a question that all ranks ask again and again. Only each
    `QUESTIONS`th is answered, because ranks wait for each other to answer; the others are denied.
    """
    if count() == 1:
        return answer
    if next(_questions) % QUESTIONS:
        return False
    return bool(_summed([_message(0 if number() else answer)])[0])


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Gives the network the mean of all ranks' running statistics, for batch norm's are those of a
    rank's own images. The mean of variances lacks the variance between the ranks' means.
    """
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if count() > 1 and statistics:
        for buffer, total in zip(statistics, _summed(statistics), strict=True):
            buffer.copy_(total / count())


def accuracy(model: nn.Module, samples: Samples) -> float:
    """The network's top-1 accuracy, 0…1, to which each rank predicts its part of the samples."""
    if count() == 1:
        return inference.accuracy(model, samples)
    part = _part(len(samples.labels))
    own = Samples(samples.images[part], samples.labels[part], samples.normalize)
    correct = inference.accuracy(model, own) * len(own.labels) if len(own.labels) else 0
    (total,) = totals(torch.tensor(float(correct), device=next(model.parameters()).device))
    return round(float(total)) / len(samples.labels)


def join(device: torch.device) -> bool:
    """Makes this process one of the ranks that `launch` started. Whether it is the first one."""
    # The launcher tells of Ctrl-C. If it is killed, Linux sends the same signal to its ranks.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Python would warn of tqdm's own lock, for all processes, if this one is stopped.
    tqdm.set_lock(threading.RLock())
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return number() == 0


def _failure(rank: int, exitcode: int, recorded: dict) -> Exception:
    """What the failure of a rank is to the stage.

    recorded: torchrun's record of the exception, if there was one.
    """
    message = recorded["message"]
    if isinstance(message, dict):
        kind, _, text = message["message"].partition(": ")
        if kind == UserError.__name__:
            return UserError(text)
        return RuntimeError(f"rank {rank}:\n{message['extraInfo']['py_callstack']}")
    how = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
    return UserError(
        f"compute.ranks: rank {rank} ended with {how}, and the others were stopped; if memory"
        " was short, use fewer ranks or a smaller training.batch_size"
    )


def launch(count: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of a module with these arguments in `count` processes of this machine, which
    are to `join`. All are gone when this returns what the first of them returned.

    Raises UserError if one of them does, or is killed; RuntimeError for other errors.
    """
    # Most stages have one rank.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # It would tell in many lines what is an error of one line here.
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            return elastic_launch(config, function)(*arguments)[0]
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise _failure(rank, failure.exitcode, failure.error_file_data) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)
        finally:
            logging.disable(logging.NOTSET)
