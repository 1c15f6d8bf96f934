"""The figures of what is deployed: how small packed files get, how fast which engine runs."""

from stages.lib.analysis import tables
from stages.lib.report import deployment_charts, deployment_tables
from stages.lib.report.markdown import no_gain, setting
from stages.lib.report.views import Figure, View, bars, percent


def packed(seen: View) -> Figure | None:
    """Accuracy of packed files against their size, what makes them small apart."""
    if seen.run.deployed is None:
        return None
    lines = deployment_tables.packed_lines(seen.everything)
    if lines.empty:
        return None
    told = []
    for method, name in tables.PACKED.items():
        here = lines[lines.method == method]
        if len(here):
            last = here.sort_values("smaller").iloc[-1]
            told.append(f"{name} down to {last.smaller:.1f} × ({percent(last.test_accuracy)})")
    return Figure(
        "packed",
        "Packed files: how many times smaller?",
        f"Real files, entropy-coded: {'; '.join(told)}. The dense network has"
        f" {percent(seen.dense.test_accuracy)}.",
        "Trained for it, from the dense network on, each size from the one before. Horizontal line:"
        f" the dense network. {bars(seen.run)}",
        [deployment_charts.by_size(seen.everything)],
        [
            ("Packed files", deployment_tables.packed(seen.everything)),
            (
                "Every kept network in every form",
                deployment_tables.ladder(seen.run.deployed.sizes),
            ),
        ],
    )


def engines(seen: View) -> Figure | None:
    """The same networks in torch and in ONNX Runtime."""
    if seen.run.deployed is None:
        return None
    timed = seen.run.deployed.engines
    lines = deployment_tables.engine_lines(timed)
    known = lines[lines.faster.notna()]
    told = []
    for batch, here in known.groupby("batch_size"):
        best = here.sort_values("faster", kind="stable").iloc[-1]
        name = deployment_tables.network(best.method, best.weight_bits, best.target_sparsity)
        told.append(f"batch {batch}: {name} in {best.engine}, {best.faster:.1f} ×")
    return Figure(
        "engines",
        "The same networks in other engines",
        f"Fastest against eager float32: {'; '.join(told) or 'nothing was timed'}."
        f" {no_gain(timed)}".strip(),
        f"{setting(timed)} Medians over seeds, all networks of a seed timed in turns."
        " int8: weights and activations, as executed. Accuracies are those of the executed files.",
        deployment_charts.engines(timed),
        [
            (
                "Every engine",
                deployment_tables.engines(timed, seen.everything, seen.run.deployed.agreements),
            )
        ],
    )
