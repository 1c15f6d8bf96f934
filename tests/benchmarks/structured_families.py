"""Prunes torchvision's families by half and prints the table of docs/structured-pruning.md.

    python -m tests.benchmarks.structured_families [FAMILY …]

All families take about two minutes on one core.
"""

from collections import Counter
from importlib.metadata import version

from stages.lib.analysis import tables
from stages.lib.evaluation import counting, difference
from stages.lib.structured import analysis, coupling, ranking, removal
from tests import families, toys
from tests.benchmarks.common import parser, timed

SPARSITY = 0.5


def row(name: str) -> list[str]:
    """One family, pruned to SPARSITY with the same share of every coupled group."""
    model, shape = families.build(name), families.shape(name)
    seconds: dict[str, float] = {}
    with timed(seconds, "analysis"):
        plan = analysis.analyse(model, shape)
    chosen = ranking.choose(model, plan, SPARSITY, "layer")
    masked, small = removal.mask(model, plan, chosen), removal.remove(model, plan, chosen)
    apart = difference.largest(masked, small, toys.noise(4, shape))
    reasons = Counter(why for why in plan.refused.values() if why != coupling.CLASSES)
    millions = [f"{counting.parameters(network) / 1e6:.2f}" for network in (model, small)]
    work = [f"{counting.macs(network, shape) / 1e6:.1f}" for network in (model, small)]
    return [
        name,
        f"{shape[1]}",
        " → ".join(millions),
        " → ".join(work),
        f"{apart:.0e}",
        f"{seconds['analysis']:.1f}",
        "; ".join(f"{count} layers: {why.partition(' (')[0]}" for why, count in reasons.items()),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("families", metavar="FAMILY", nargs="*", default=[*families.FAMILIES])
    names = arguments.parse_args().families
    headers = (
        "network", "pixels", "parameters, M", "MACs, M", "masked − small", "analysis, s",
        "refused, besides the classifier",
    )  # fmt: skip
    print(tables.Table(headers, [row(name) for name in names]).markdown())
    packages = ("torch", "torchvision", "torch-pruning")
    print("\n" + ", ".join(f"{package} {version(package)}" for package in packages))


if __name__ == "__main__":
    main()
