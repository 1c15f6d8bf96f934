"""Compares the results in reports/ with those at a Git revision, metric by metric.

Exit code 0: no real loss; 1: a real loss, beyond report.tolerance; 2: nothing to compare.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stages.lib.analysis import committed, comparison, comparison_text, manifest
from stages.lib.core import errors, paths
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError

# The stages whose rows give the metrics. All but the first may be missing.
STAGES = (
    "train_baseline", "global_prune", "finetune", "iterative_prune", "structured_prune",
    "int_quantize",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a run's reports/ are.

    name: for people.
    remedy: what to do if they are damaged.
    text: reads a file, given its path in the repository; None if there is no such file.
    """

    name: str
    remedy: str
    text: Callable[[Path], str | None]

    def problem(self, file: Path, what: str) -> UserError:
        return UserError(f"{self.name}: {file}: {what}; {self.remedy}")


def git(*arguments: str) -> subprocess.CompletedProcess:
    """Runs git here. UserError if git is not installed."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True)
    except FileNotFoundError:
        raise UserError("git: not found; install it to compare with a revision") from None


def commit_of(revision: str) -> str:
    """The full hash of a branch, tag or commit. UserError if there is none of that name."""
    inside = git("rev-parse", "--git-dir")
    if inside.returncode != 0:
        reason = inside.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"{Path.cwd()}: git says {' '.join(reason[:1])!r}; run this in a clone with its history"
        )
    # A name with a leading dash would be an option of git.
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if revision.startswith("-") or found.returncode != 0:
        raise UserError(
            f"{revision}: not a revision of this repository; take one of `git log --oneline --all`"
            " (a shallow clone lacks most: `git fetch --unshallow`)"
        )
    return found.stdout.decode().strip()


def decoded(content: bytes) -> str:
    """Text with the line ends of the tables as written, whatever a checkout changed them to."""
    return content.decode("utf-8", errors="replace").replace("\r\n", "\n")


def at_revision(revision: str, commit: str) -> Place:
    """reports/ at a commit. Does not touch the working tree."""

    def text(file: Path) -> str | None:
        # With ./, because the project may be a folder of a larger repository.
        found = git("cat-file", "blob", f"{commit}:./{file.as_posix()}")
        return decoded(found.stdout) if found.returncode == 0 else None

    return Place(
        revision, "take another revision, or run `dvc repro` there and commit its reports/", text
    )


def in_working_tree() -> Place:
    """reports/ in the working tree, committed or not."""

    def text(file: Path) -> str | None:
        try:
            return decoded(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    return Place("working tree", "run `dvc repro`", text)


def manifest_of(place: Place) -> manifest.Manifest:
    """A run's manifest. UserError if there is no report, or one older than manifests."""
    file = paths.RUNS / paths.MANIFEST
    text = place.text(file)
    if text is None and place.text(paths.METRICS) is None:
        raise place.problem(paths.REPORTS, "no report there")
    if text is None:
        raise place.problem(file, "not there, the report is of an older format")
    try:
        return manifest.parse(text)
    except ValueError as error:
        raise place.problem(file, str(error)) from None


def tables_of(
    place: Place, stage: str, seeds: Sequence[int | None], columns: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """A stage's table for each seed; empty if the run had no such stage."""
    files = [paths.reported(paths.stage_directory(stage, seed) / paths.ROWS) for seed in seeds]
    texts = [place.text(file) for file in files]
    for file, text in zip(files, texts, strict=True):
        if text is not None:
            try:
                yield committed.table(text, columns)
            except ValueError as error:
                raise place.problem(file, str(error)) from None
        elif stage == STAGES[0] or any(other is not None for other in texts):
            raise place.problem(file, "missing")


def joined(parts: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    found = list(parts)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(columns))


def run_of(place: Place) -> committed.Run:
    """A run, read from its reports/. UserError with place and file if they are damaged."""
    about = manifest_of(place)
    rows = [
        part for stage in STAGES for part in tables_of(place, stage, about.seeds, committed.ROWS)
    ]
    timed = tables_of(place, "latency_bench", about.seeds, committed.LATENCIES)
    formats = tables_of(place, "dtype_bench", [None], committed.FORMATS)
    return committed.Run(
        about,
        joined(rows, committed.ROWS),
        joined(timed, committed.LATENCIES),
        joined(formats, committed.FORMATS),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.compare", description=__doc__)
    parser.add_argument("base", metavar="BASE_REV", help="a commit, branch or tag")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="for programs")
    shown.add_argument("--markdown", action="store_true", help="for a summary in CI")
    arguments = parser.parse_args(argv)
    with errors.told():
        params = parameters.read("layerwise_sweep", "report")
        rules = comparison.Rules(
            params.report.sparsity,
            params.layerwise_sweep.max_accuracy_drop,
            params.report.confidence,
            params.report.tolerance,
        )
        commit = commit_of(arguments.base)
        before, after = map(run_of, (at_revision(arguments.base, commit), in_working_tree()))
        lines = comparison.compare(before, after, rules)
    told = (
        f"{arguments.base} ({commit[:7]}) → working tree",
        comparison_text.facts(before.manifest, after.manifest, rules),
        lines,
        rules,
    )
    if arguments.json:
        print(json.dumps(comparison_text.plain_values(*told), indent=2, ensure_ascii=False))
    else:
        print((comparison_text.markdown if arguments.markdown else comparison_text.plain)(*told))
    return int(any(line.real_loss for line in lines))


if __name__ == "__main__":
    sys.exit(main())
