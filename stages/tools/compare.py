"""Compares the results in reports/ with those at a Git revision, metric by metric.

Exit code 0: no real loss; 1: a real loss, beyond report.tolerance; 2: nothing to compare.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from stages.lib.analysis import committed, comparison, comparison_text, metrics, stage_tables
from stages.lib.core import errors, paths
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError


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


def manifest_of(place: Place) -> committed.Manifest:
    """A run's manifest. UserError if there is no report, or one older than manifests."""
    file = paths.RUNS / paths.MANIFEST
    text = place.text(file)
    if text is None:
        raise place.problem(file, "no report there, or one of an older format")
    try:
        return committed.manifest(text)
    except ValueError as error:
        raise place.problem(file, str(error)) from None


def table_of(
    place: Place, stage: str, seeds: Sequence[int | None], columns: Sequence[str]
) -> pd.DataFrame:
    """A stage's table, of all seeds; empty if the run had no such stage."""
    files = [paths.reported(paths.stage_directory(stage, seed) / paths.ROWS) for seed in seeds]
    texts = {file: place.text(file) for file in files}
    if stage != "train_baseline" and set(texts.values()) == {None}:
        return pd.DataFrame(columns=list(columns))
    parts = []
    for file, text in texts.items():
        if text is None:
            raise place.problem(file, "missing")
        try:
            parts.append(committed.table(text, columns))
        except ValueError as error:
            raise place.problem(file, str(error)) from None
    return stage_tables.concatenated(parts)


def run_of(place: Place) -> committed.Run:
    """A run, read from its reports/. UserError with place and file if they are damaged."""
    about = manifest_of(place)
    rows = [table_of(place, stage, about.seeds, committed.ROWS) for stage in metrics.stages()]
    latencies = table_of(place, "latency_bench", [None], committed.LATENCIES)
    return committed.Run(about, stage_tables.concatenated(rows), latencies)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.compare", description=__doc__)
    parser.add_argument("base", metavar="BASE_REV", help="a commit, branch or tag")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="for programs")
    shown.add_argument("--markdown", action="store_true", help="for a summary in CI")
    arguments = parser.parse_args(argv)
    with errors.told():
        report = parameters.read("report").report
        rules = comparison.Rules(report.sparsity, report.confidence, report.tolerance)
        commit = commit_of(arguments.base)
        before, after = map(run_of, (at_revision(arguments.base, commit), in_working_tree()))
    compared = f"{arguments.base} ({commit[:7]}) → working tree"
    result = comparison_text.build(compared, before, after, rules)
    if arguments.json:
        print(json.dumps(asdict(result), indent=2, ensure_ascii=False))
    else:
        print(result.markdown() if arguments.markdown else result.plain())
    return int(bool(result.real_losses))


if __name__ == "__main__":
    sys.exit(main())
