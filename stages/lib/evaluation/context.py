"""What a stage works with: device, data, baseline, evaluator, random streams and results."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from stages.lib.core import custom_model, normalization, outputs, paths, prepared, records
from stages.lib.core.params import BASELINE, NONE
from stages.lib.core.repository import person_path
from stages.lib.core.stage import Stage
from stages.lib.evaluation import counting, device, images, layout, ranks, samples
from stages.lib.evaluation.evaluator import Evaluator
from stages.lib.evaluation.results import Results
from stages.lib.evaluation.samples import Data
from stages.lib.evaluation.states import States
from stages.lib.models import checkpoints, head, registry


class Context(Stage):
    """A stage that works with networks. Each part is made when it is first used.

    states: where trainings save their states.
    """

    states = States()

    @cached_property
    def device(self) -> torch.device:
        """The device on which networks are trained and measured. Configures torch for it."""
        compute = self.params.compute
        return device.configure(compute.device, compute.threads)

    @cached_property
    def precision(self) -> torch.dtype:
        """The number format of convolutions while training."""
        return device.training_dtype(self.params.compute.precision, self.device)

    @cached_property
    def _own(self) -> list[registry.Architecture]:
        """The networks of the user's own that take part in training."""
        shape, classes = self._prepared.image_shape, self._prepared.classes
        found = [self._described(shape, classes)]
        if hasattr(self.params, "teacher") and self.params.teacher.name != BASELINE:
            found.append(self.teacher_architecture)
        return [one for one in found if custom_model.is_own(one["name"])]

    @property
    def replayed(self) -> bool:
        """Whether training steps may be replayed from CUDA graphs. The user's own network may
        decide anew in every call, which a replay would not.
        """
        return self.device.type == "cuda" and not self._own

    @cached_property
    def _prepared(self) -> prepared.Dataset:
        return prepared.load(paths.PREPARED)

    @cached_property
    def data(self) -> Data:
        """The prepared data on the device, with the normalization of the params."""
        dataset, name = self._prepared, self.params.model.normalize
        statistics = normalization.of(name, dataset.mean, dataset.std)
        normalize = images.Normalize(*statistics, self.device, self.layout)
        return samples.on_device(dataset, self.device, normalize)

    @cached_property
    def training_normalize(self) -> images.Normalize:
        """The normalization by mean and standard deviation of the training images."""
        meta = prepared.read_meta(paths.PREPARED)
        return images.Normalize(meta["mean"], meta["std"], self.device, self.layout)

    @cached_property
    def watched(self) -> dict[str, str]:
        """The files that the user's network opens, as far as `probe` has seen them, relative to its
        folder.
        """
        return outputs.read_json(paths.INPUT_MODEL, records.REMEDY).get("opened", {})

    @cached_property
    def layout(self) -> torch.memory_format:
        """The memory layout of images and convolutions."""
        _ = self.device  # configures torch
        shape, own = self._prepared.image_shape, self._own
        found = [layout.fastest(registry.build_seeded(one, 0), shape) for one in own]
        return layout.PLAIN if layout.PLAIN in found else layout.FAST

    def _described(
        self, image_shape: Sequence[int], classes: Sequence[str]
    ) -> registry.Architecture:
        channels, *size = image_shape
        model, file = self.params.model, self.params.model.class_index
        logits = None if file == NONE else head.read(person_path(file), classes)
        return registry.architecture(model.name, model.width, channels, len(classes), size, logits)

    @cached_property
    def architecture(self) -> registry.Architecture:
        """The unpruned network that the params describe for this data."""
        return self._described(self.data.image_shape, self.data.classes)

    @cached_property
    def logits(self) -> tuple[int, list[int]] | None:
        """How many logits the pretrained network has and which are the classes, if a file says."""
        file = self.params.model.class_index
        return None if file == NONE else head.read(person_path(file), self.data.classes)

    @cached_property
    def baseline(self) -> nn.Module:
        """The trained baseline of this seed, on the device."""
        return self.network(paths.baseline(self.seed))

    @cached_property
    def teacher_architecture(self) -> registry.Architecture:
        """The teacher that the params describe, if it is not the baseline."""
        channels, *size = self._prepared.image_shape
        teacher, classes = self.params.teacher, len(self._prepared.classes)
        return registry.architecture(teacher.name, teacher.width, channels, classes, size)

    @cached_property
    def teacher(self) -> nn.Module:
        """The network from which others learn, on the device: of the stage train_teacher, or the
        baseline of this seed.
        """
        if self.params.teacher.name == BASELINE:
            return self.baseline
        file = paths.stage_directory("train_teacher") / paths.MODEL
        return self.place(checkpoints.load_model(file, self.teacher_architecture))

    @cached_property
    def evaluator(self) -> Evaluator:
        """Measures networks against the baseline of this seed."""
        return Evaluator(self.seed, self.data, counting.prunable_weights(self.baseline))

    @cached_property
    def results(self) -> Results:
        """Collects this stage's rows, networks and predictions."""
        return Results(self.directory, self.output, self.evaluator)

    def begin(self, output: Path, place: Path, states: States) -> None:
        """Begins an arm: what it leaves is written to `place` and becomes a part of `output`. Data
        and baseline stay loaded.
        """
        self.states = states
        for name in ("output", "directory", "results"):
            vars(self).pop(name, None)
        self.places = {output: place}

    def network(self, path: Path) -> nn.Module:
        """A network of the params' architecture from its file, on the device."""
        return self.place(checkpoints.load_model(path, self.architecture))

    def place(self, network: nn.Module) -> nn.Module:
        """The network on the device, in the memory layout of the images."""
        return device.place(network, self.device, self.data.train.normalize.layout)

    def generator(self, purpose: str) -> torch.Generator:
        """A random stream for one purpose of this stage and seed."""
        return device.generator(self.seed, f"{self.name} {purpose}")

    def finish(self) -> None:
        if "results" in vars(self):
            self.results.write()
            self.result = self.result or records.told(self.results.rows)

    def execute(self, main: Callable[[Stage], None]) -> None:
        """As in Stage; in each of the ranks if the stage trains and compute.ranks is above 1."""
        count = self.params.compute.ranks
        if count == 1 or not hasattr(self.params, "training"):
            super().execute(main)
            return
        with tempfile.TemporaryDirectory() as folder:
            arguments = main, self, Path(folder)
            self.result, self.closing = ranks.launch(count, _run_as_rank, *arguments)


def _run_as_rank(
    main: Callable[[Stage], None], context: Context, folder: Path
) -> tuple[str, Sequence[str]]:
    """Runs the whole stage, in one rank: its result and closing lines. Outputs and messages of the
    first rank are kept.

    context: without any part made yet.
    folder: for what the other ranks write.
    """
    with contextlib.ExitStack() as stack:
        first = ranks.join(context.device)
        if context.states.folder:
            context.states.folder /= f"rank-{ranks.number()}"
        if not first:
            own = Path(tempfile.mkdtemp(dir=folder))
            context.places = {final: own / final.name for final in context.places}
            for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
                stack.enter_context(redirect(io.StringIO()))
        main(context)
        context.finish()
    return context.result, context.closing
