"""A run: the tables of all its stages and seeds, and what is derived from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.analysis import latencies, number_formats, statistics, tables
from stages.lib.analysis.class_costs import Predicted
from stages.lib.analysis.tables import of_family
from stages.lib.core import engines, methods, paths
from stages.lib.core.records import ALL_LAYERS, MOST_IQR, torch_engine

BASELINE = "baseline"
TORCH = torch_engine("float32")
CPU = "cpu"
CAST = "cast"
# Latencies of networks with equal work may differ by this factor; more means a busy machine.
EQUAL_WORK = 1.25
# With fewer test images, one image is half a percentage point or more.
FEW_IMAGES = 200
# The families of networks that are trained and pruned, but not quantized.
COURSE = (methods.DENSE, methods.UNSTRUCTURED, methods.STRUCTURED)


def is_ranked(lines: pd.DataFrame) -> pd.Series:
    """Whether each latency is steady enough for a ranking."""
    return lines.latency_iqr_ms <= MOST_IQR * lines.latency_ms


@dataclass(frozen=True)
class Run:
    """All data of the reports. Tables are of all seeds, with the columns of `records` and a column
    `seed`.

    rows: of every network, of all stages.
    best, filters, layers, agreements, int8_layers, sizes, formats: BEST_SPARSITY,
        PRUNED_LAYER, QUANTIZED_LAYER, AGREEMENT, LAYER_NOISE, FILE_SIZE and FORMAT.
    latencies: LATENCY, of all networks and of those that dtype_bench alone has.
    inventory: LAYER, the network's parameters.
    curves: EPOCH, the baseline's training.
    selection: selection.json, what `package` chose.
    refused: REFUSED, what could not be made; None if unknown.
    intervals: of test accuracies, as for `tables.with_bounds`; None to show the spread over seeds.
    predicted: the classes that the baseline and the recommended files give, by the name of a choice
        of the selection; empty if they are not known.
    labels: of the parts "validation" and "test", int64 [images].
    pictures: the validation images, uint8 [images, channels, height, width].
    teacher: what teacher.json says of the network that taught others; None if the baseline did.
    made: when and from which commit the report was made: `date` and `commit`, may be empty.
    params: params.yaml by section, as plain values.
    meta, hardware: of the data and of the machine.
    chance: the chance level, a share.
    """

    seeds: Sequence[int]
    rows: pd.DataFrame
    best: pd.DataFrame
    filters: pd.DataFrame
    layers: pd.DataFrame
    agreements: pd.DataFrame
    int8_layers: pd.DataFrame
    latencies: pd.DataFrame
    sizes: pd.DataFrame
    formats: pd.DataFrame
    inventory: pd.DataFrame
    curves: pd.DataFrame
    selection: Mapping[str, Any]
    params: Mapping[str, Any]
    meta: Mapping[str, Any]
    hardware: Mapping[str, Any]
    chance: float
    intervals: pd.DataFrame | None = None
    refused: pd.DataFrame | None = None
    predicted: Mapping[str, Predicted] = field(default_factory=dict)
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    pictures: NDArray[np.uint8] | None = None
    teacher: Mapping[str, Any] | None = None
    made: Mapping[str, str] = field(default_factory=dict)

    @property
    def course(self) -> bool:
        """Whether the report has the course's findings as an appendix."""
        return self.params["report"]["course"]

    @property
    def sparsity(self) -> float:
        """The sparsity at which methods are compared."""
        return self.params["report"]["sparsity"]

    @property
    def max_drop(self) -> float:
        """The largest loss of validation accuracy for the sparsest networks."""
        return self.params["layerwise_sweep"]["max_accuracy_drop"]

    @property
    def confidence(self) -> float:
        return self.params["report"]["confidence"]

    @property
    def context(self) -> dict[str, Any]:
        """The facts that all findings share, for findings.json."""
        return {
            "network": self.params["model"]["name"],
            "data": self.meta["source"],
            "classes": len(self.meta["classes"]),
            "test_images": self.meta["images"]["test"],
            "seeds": list(self.seeds),
            "confidence": self.confidence,
            "tolerance": self.params["report"]["tolerance"],
        }

    @property
    def is_trained(self) -> bool:
        """Whether this run trained the baseline."""
        return len(self.curves) > 0 and int(self.curves.epoch.max()) > 0

    @property
    def origin(self) -> str:
        """The file of the baseline's weights: a checkpoint, or that of the user's own network."""
        model = self.params["model"]
        return model["name"] if model["weights"] == "none" else model["weights"]

    @cached_property
    def _deployed(self) -> pd.DataFrame:
        """The row of the seed whose file would be deployed, of each network: the best validation
        accuracy, then the first seed. A size is that of this file, everywhere.
        """
        best = self.rows.sort_values("validation_accuracy", ascending=False, kind="stable")
        return best.drop_duplicates([*tables.KEYS, "layer"])

    @cached_property
    def deployed_sizes(self) -> pd.DataFrame:
        """The lines of `sizes` of the files that would be deployed."""
        keys = [*tables.KEYS, "seed"]
        whole = self._deployed[self._deployed.layer == ALL_LAYERS]
        return self.sizes.merge(whole[keys], on=keys)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Means over seeds (`tables.summary`) with error bars; `bytes_on_disk`: of the file that
        would be deployed; `name` and `network`, for people;
        `change` and `validation_change`: of accuracy against the baseline; `smaller`: how many
        times smaller the file is than the baseline's.
        """
        found = tables.with_bounds(tables.summary(self.rows), self.intervals)
        keys = [*tables.KEYS, "layer"]
        sizes = self._deployed.set_index(keys).bytes_on_disk
        found["bytes_on_disk"] = sizes.loc[pd.MultiIndex.from_frame(found[keys])].to_numpy()
        baseline = found[found.method == BASELINE].iloc[0]
        return found.assign(
            name=[methods.METHODS[name].title for name in found.method],
            network=[_words(line) for line in found.itertuples()],
            change=found.test_accuracy - baseline.test_accuracy,
            validation_change=found.validation_accuracy - baseline.validation_accuracy,
            smaller=baseline.bytes_on_disk / found.bytes_on_disk,
        )

    @cached_property
    def baseline(self) -> pd.Series:
        """The baseline's line of the summary."""
        return self.summary[self.summary.method == BASELINE].iloc[0]

    @cached_property
    def pruned(self) -> pd.DataFrame:
        """The float32 networks of the summary that were trained or pruned, in the order of the
        registry. `removed`: the target sparsity; without a target, the sparsity reached.
        """
        whole = self.summary[self.summary.layer == ALL_LAYERS]
        found = of_family(whole[whole.weight_bits == 32], *COURSE)
        asked, order = found.target_sparsity, list(methods.METHODS)
        found = found.assign(
            removed=asked.where(asked > 0, found.sparsity), place=found.method.map(order.index)
        )
        return found.sort_values(["place", "target_sparsity"], kind="stable")

    @cached_property
    def _medians(self) -> pd.DataFrame:
        """The medians over seeds of latency and IQR, by network, engine, device and batch size,
        with the repetitions of all seeds together.
        """
        keys = [*tables.KEYS[:3], "engine", "device", "batch_size"]
        found = self.latencies.groupby(keys, sort=False, as_index=False).agg(
            threads=("threads", "first"),
            isa=("isa", "first"),
            latency_ms=("latency_ms", "median"),
            latency_iqr_ms=("latency_iqr_ms", lambda values: values.median(skipna=False)),
            repetitions=("repetitions", "sum"),
            note=("note", "first"),
        )
        return found.assign(latency_ms=found.latency_ms.map(latencies.told))

    @cached_property
    def timed(self) -> pd.DataFrame:
        """A line for each network, engine, device and batch size, with medians over seeds.
        `network`: its name; `speedup`: the baseline's latency in torch on the same device divided
        by this one; `ranked`: whether the IQR is small enough for a ranking; `comparable`: whether
        the baseline's is too.
        """
        found = self._medians[self._medians.method.isin(methods.METHODS)]
        found = found.assign(ranked=is_ranked(found))
        baseline = found[(found.method == BASELINE) & (found.engine == TORCH)]
        keys = ["device", "batch_size"]
        baseline = baseline.set_index(keys)[["latency_ms", "ranked"]].add_prefix("baseline_")
        found = found.join(baseline, on=keys)
        return found.assign(
            network=[_words(line) for line in found.itertuples()],
            masked=found.method.map(lambda name: methods.METHODS[name].masked).astype(bool),
            speedup=found.baseline_latency_ms / found.latency_ms,
            throughput=1000 * found.batch_size / found.latency_ms,
            comparable=found.ranked & found.baseline_ranked.eq(True),
        )

    @cached_property
    def timed_formats(self) -> pd.DataFrame:
        """Number formats with their latencies; those of the baseline are from `timed`."""
        return number_formats.with_latencies(self.formats, self._medians)

    @property
    def batch_size(self) -> int:
        """The batch size of the latencies by which networks are compared; 1 if none was timed."""
        chosen, timed = self.selection["baseline"]["batch_size"], self.latencies.batch_size
        return chosen or (int(timed.min()) if len(timed) else 1)

    @cached_property
    def networks(self) -> pd.DataFrame:
        """Every network with its costs: a line of the summary joined with that of `timed` if it was
        timed on the CPU, in the fastest engine. The baseline in half precision is included.

        Quantized weights of several widths are stored in 8 or 16 bits: of equally large files, only
        the widest is included.
        """
        found = self.summary[self.summary.layer == ALL_LAYERS]
        integers = of_family(found, methods.INTEGER)
        widest = integers.groupby(["method", "bytes_on_disk"]).weight_bits.transform("max")
        found = found.drop(index=integers.index[integers.weight_bits < widest])
        timed = self.timed[(self.timed.device == CPU) & (self.timed.batch_size == self.batch_size)]
        keys = list(tables.KEYS[:3])
        files = timed[timed.engine.isin(engines.ENGINES)].drop(columns="network")
        files = files.sort_values(["ranked", "latency_ms"], ascending=[False, True], kind="stable")
        joined = self._as_executed(found.merge(files.drop_duplicates(keys), "left", keys))
        return pd.concat([joined, self._casts(timed)], ignore_index=True)

    def _as_executed(self, networks: pd.DataFrame) -> pd.DataFrame:
        """The networks with their test accuracies in the engine of their latency. Those of the
        summary are in the first engine; the ends of error bars move with them.
        """
        keys = [*tables.KEYS[:3], "engine"]
        executed = self.agreements.groupby(keys, as_index=False).test_accuracy.mean()
        found = networks[keys].merge(executed, "left", keys).set_index(networks.index).test_accuracy
        moved = (found - networks.test_accuracy).fillna(0)
        bars = ["test_accuracy", "low", "high", "change"]
        return networks.assign(**networks[bars].add(moved, axis=0))

    def _casts(self, timed: pd.DataFrame) -> pd.DataFrame:
        """The first seed's baseline in half precision, with the columns of `networks`, if it was
        measured on all test images.
        """
        known = self.formats[(self.formats.network == BASELINE) & self.formats.accuracy.notna()]
        known = known[known.agreement.isna() & (known.dtype != "float32")]
        known = known.drop_duplicates("dtype")
        known = known[["dtype", "accuracy", "bytes_on_disk"]].assign(
            engine=known.dtype.map(torch_engine)
        )
        columns = ["engine", "latency_ms", "latency_iqr_ms", "speedup", "ranked", "comparable"]
        found = known.merge(timed[timed.method == BASELINE][columns], "left", "engine")
        return found.assign(
            network=found.dtype, method=CAST, test_accuracy=found.accuracy, low=found.accuracy,
            high=found.accuracy, macs=self.baseline.macs, masked=False,
            smaller=self.baseline.bytes_on_disk / found.bytes_on_disk,
        ).drop(columns=["dtype", "accuracy"])  # fmt: skip

    def throughput(self, choice: Mapping[str, Any]) -> pd.Series | None:
        """The line of `timed` with a network's largest batch on the CPU; None if there is none.

        choice: a network of the selection.
        """
        known = self.timed[self.timed.latency_ms.notna() & (self.timed.device == CPU)]
        found = [
            line
            for _, line in known[known.engine == choice["engine"]].iterrows()
            if paths.network_name(line.method, line.target_sparsity, line.weight_bits)
            == choice["name"]
        ]
        return max(found, key=lambda line: line.batch_size, default=None)

    @property
    def chosen(self) -> dict[str, Mapping[str, Any]]:
        """The recommended files that are not the baseline's, by role."""
        found = {role: one["choice"] for role, one in self.selection["recommended"].items()}
        return {role: one for role, one in found.items() if one and one["method"] != BASELINE}

    @property
    def equal_work(self) -> pd.Series:
        """The latency of masked networks in torch as a multiple of the baseline's. They do the same
        work, so this is a control for all latencies.
        """
        masked = self.timed[self.timed.masked & (self.timed.engine == TORCH)]
        return (1 / masked.speedup).dropna()

    @property
    def empty_lists(self) -> list[str]:
        """The params that name nothing to do, in order: `section.key`, or a bare section."""
        sections = {
            name: value if isinstance(value, Mapping) else {"": value}
            for name, value in self.params.items()
        }
        return [
            f"{section}.{key}".removesuffix(".")
            for section, keys in sections.items()
            for key, value in keys.items()
            if value == []
        ]

    @property
    def remarks(self) -> list[str]:
        """The warnings that a reader needs before any number, by their names in words.j2."""
        images = self.meta["images"]["test"]
        work = self.equal_work
        unequal = len(work) and not (work.min() >= 1 / EQUAL_WORK and work.max() <= EQUAL_WORK)
        unranked = self.timed.latency_ms.notna() & ~self.timed.ranked
        told = {
            "left_out": bool(self.empty_lists),
            "at_chance": statistics.at_chance(self.baseline.test_accuracy, self.chance, images),
            "few_images": images < FEW_IMAGES,
            "one_seed": len(self.seeds) == 1,
            "busy": unequal,
            "unranked": unranked.any(),
        }
        return [name for name, there in told.items() if there]


def _words(line: Any) -> str:
    """The name of a network of a summary. A sparsity without a target is shown only for networks
    that are pruned in torch.
    """
    reached = getattr(line, "sparsity", 0.0)
    pruned = methods.METHODS[line.method].family in COURSE
    sparsity = line.target_sparsity or (reached if pruned else 0.0)
    smaller = getattr(line, "times_smaller", 1.0)
    return tables.network(line.method, line.weight_bits, sparsity, smaller)
