"""CUDA graphs: a training step is recorded once and replayed.

A step of a small network is a hundred short kernels. Python takes longer to launch them than a GPU
to compute them; a replay launches all of them at once. The kernels, and so the results, are those
of the step as it is.
"""

import warnings
from collections.abc import Callable

import torch

# Steps that run as they are before one is recorded: libraries choose their kernels and allocate
# their workspaces meanwhile.
WARM_UP = 3

Step = Callable[[torch.Tensor, torch.Tensor], None]


class Replayed:
    """Calls `step`, from its fourth call on by a CUDA graph. Arguments of another shape than those
    of the first call go to `step` itself.

    step: changes tensors in place and depends on nothing but its arguments and on tensors that are
        never replaced. It must not read a value of a tensor on the host.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.arguments: tuple[torch.Tensor, ...] = ()
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream()

    def __call__(self, *arguments: torch.Tensor) -> None:
        if not self.arguments:
            self.arguments = tuple(argument.clone() for argument in arguments)
        if [argument.shape for argument in arguments] != [own.shape for own in self.arguments]:
            self.step(*arguments)
            return
        for own, argument in zip(self.arguments, arguments, strict=True):
            own.copy_(argument)
        if self.calls == WARM_UP and self.graph is None:
            self._record()
        self.calls += 1
        if self.graph is not None:
            self.graph.replay()
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(*self.arguments)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.step(*self.arguments)
        except RuntimeError as error:
            torch.cuda.synchronize()
            reason = str(error).partition("\n")[0]
            warnings.warn(f"training without a CUDA graph: {reason}", stacklevel=2)
        else:
            self.graph = graph
