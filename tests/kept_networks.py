"""Networks whose files are kept, made up: what they cost and what they are worth is known."""

from made_up import right, row

from stages.lib.analysis import selection
from stages.lib.analysis.latencies import Latency
from stages.lib.analysis.predictions import Key
from stages.lib.core import methods

SEEDS = (0, 1, 2)
VALIDATION, TEST = 1000, 1000
BASELINE = {"bytes": 40_000, "accuracy": 0.95, "ms": 2.0}
SUFFIXES = {methods.PACKED: ".packed", methods.ONNX: ".onnx"}


class Kept:
    """Rows and latencies in the making; a value is the same for each seed, or a list of theirs."""

    def __init__(self, seeds=SEEDS, **baseline):
        self.seeds, self.rows, self.latencies, self.further = list(seeds), [], {}, {}
        self.add("baseline", **(BASELINE | baseline))

    def add(
        self, method, target=0.0, *, bytes, accuracy, ms=None, iqr=0.001, seeds=None, test=0.9,
        kept=True, bits=32, times_smaller=1.0, **other,
    ):  # fmt: skip
        known = methods.METHODS[method]
        suffix = SUFFIXES.get(known.family, ".safetensors")
        engine = "onnxruntime" if suffix == ".onnx" else "torch"
        for index, seed in enumerate(self.seeds if seeds is None else seeds):
            size, accurate, tested = (
                value[index] if isinstance(value, list) else value
                for value in (bytes, accuracy, test)
            )
            file = f"artifacts/{known.stage}/seed-{seed}/"
            file += f"{method}-{target:g}-{bits}-{times_smaller:g}{suffix}"
            self.rows.append(
                row(
                    seed, method, target, accurate, bits=bits, times_smaller=times_smaller,
                    bytes_on_disk=size, test_accuracy=tested, model=file if kept else "", **other,
                )
            )  # fmt: skip
        if ms is not None:
            self.latencies[method, target, bits, engine] = Latency(ms, iqr, engine, 1, 1)
        return self

    def in_openvino(self, method, target=0.0, bits=32, *, accuracy, ms=None, iqr=0.001):
        """What a network that is there already does in a further engine."""
        key = Key(method, target, bits, engine="openvino")
        self.further[key] = [accuracy] * len(self.seeds)
        if ms is not None:
            self.latencies[method, target, bits, key.engine] = Latency(ms, iqr, key.engine, 1, 1)
        return self

    def packed(self, times_smaller, method="packed", **other):
        return self.add(method, times_smaller=times_smaller, bits=4, **other)

    def correct(self, part, images):
        """Whose network is right on which image."""
        networks = {}
        for one in self.rows:
            if one.layer == ".all":
                networks.setdefault(selection.key_of(one), []).append(one)
        return {
            key: right([getattr(one, f"{part}_accuracy") for one in found], images)
            for key, found in networks.items()
        } | {key: right(accuracies, images) for key, accuracies in self.further.items()}

    @property
    def candidates(self):
        return selection.collect(
            self.rows, self.correct("validation", VALIDATION), self.correct("test", TEST),
            self.latencies, self.seeds, 0.95,
        )  # fmt: skip

    def choose(self, role, *limits):
        """limits: of the accuracy drop, bytes and latency, those that are set."""
        return selection.choose(self.candidates, role, budgets(*limits))

    def chosen(self, role, *limits):
        return self.choose(role, *limits).candidate.name


def budgets(*limits):
    names = (selection.DROP, selection.BYTES, selection.LATENCY)
    return {name: limit for name, limit in zip(names, limits, strict=False) if limit is not None}


def plenty():
    """Packed, ONNX and structured networks: what is smaller or faster is less accurate."""
    return (
        Kept()
        .packed(10.0, bytes=4_000, accuracy=0.945)
        .packed(50.0, bytes=800, accuracy=0.90)
        .add("onnx_baseline_float32", bytes=42_000, accuracy=0.95, ms=0.8)
        .add("onnx_baseline_int8", bits=8, bytes=12_000, accuracy=0.944, ms=0.4)
        .add("structured_global_finetune", 0.8, bytes=9_000, accuracy=0.93, ms=0.2)
    )
