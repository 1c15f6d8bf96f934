"""`python -m stages.tools.compare` between a commit and the working tree, both made here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_runs import ACCURACIES, MACHINE, META, a_run, write

from stages.tools import compare

ROOT = Path(__file__).parents[2]


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def put(folder, **about):
    shutil.rmtree(folder / "reports", ignore_errors=True)
    write(a_run(**about), folder)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder of a larger repository, whose only commit has a report; the working directory."""
    folder = tmp_path / "classifier"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    put(folder)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "a run")
    monkeypatch.chdir(folder)
    return folder


def lines_of(capsys, base="HEAD"):
    code = compare.main([base, "--json"])
    values = json.loads(capsys.readouterr().out)
    return code, {line["metric"]: line for line in values["metrics"]}


def failed(capsys, *argv):
    """What a mistake prints, after checking that it is one line and that the code is 2."""
    with pytest.raises(SystemExit) as stop:
        compare.main(list(argv))
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("change", "metric", "verdict"),
    [
        ({}, "test_accuracy.iterative", "equal"),
        ({"accuracies": ACCURACIES | {"iterative": 0.97}}, "test_accuracy.iterative", "better"),
        ({"time": 40.0, "machine": MACHINE | {"cpu": "another"}},
         "latency_ms.baseline.torch.cpu", "other machine"),
        ({"accuracies": dict.fromkeys(ACCURACIES, 0.5), "meta": META | {"checksum": "0"}},
         "test_accuracy.finetune", "other data"),
    ],
)  # fmt: skip
def test_what_is_no_real_loss_is_exit_code_0(repository, capsys, change, metric, verdict):
    put(repository, **change)
    code, lines = lines_of(capsys)
    assert code == 0
    assert len(lines) > 10
    assert lines[metric]["verdict"] == verdict
    assert change or {line["verdict"] for line in lines.values()} == {"equal"}


def test_a_loss_beyond_the_tolerance_is_exit_code_1_until_the_tolerance_forgives_it(
    repository, capsys
):
    put(repository, accuracies=ACCURACIES | {"iterative": 0.92})
    code, lines = lines_of(capsys)
    assert code == 1
    assert [name for name, line in lines.items() if line["real_loss"]] == [
        "test_accuracy.iterative"
    ]
    params = (repository / "params.yaml").read_text(encoding="utf-8")
    assert "tolerance: 0.005" in params
    params = params.replace("tolerance: 0.005", "tolerance: 0.05")
    (repository / "params.yaml").write_text(params, encoding="utf-8")
    code, lines = lines_of(capsys)
    assert code == 0
    assert lines["test_accuracy.iterative"]["verdict"] == "worse"


def test_a_stage_that_one_run_alone_has(repository, capsys):
    for stage in ("iterative_prune", "latency_bench"):
        shutil.rmtree(repository / "reports/runs" / stage)
    code, lines = lines_of(capsys)
    assert code == 0
    gone = {name for name, line in lines.items() if line["verdict"] == "gone"}
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "without it")
    put(repository)
    code, lines = lines_of(capsys)
    assert code == 0
    assert {name for name, line in lines.items() if line["verdict"] == "new"} == gone
    assert gone


def test_branches_tags_and_older_commits_are_revisions(repository, capsys):
    git(repository, "tag", "-a", "v1", "-m", "annotated")
    git(repository, "branch", "side")
    put(repository, size=9000)
    git(repository, "commit", "-qam", "larger")
    assert lines_of(capsys)[0] == 0
    for base in ("v1", "side", "HEAD~1", "main^"):
        assert lines_of(capsys, base)[0] == 1


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        # As git checks tables out on Windows.
        (lambda content: content.replace(b"\n", b"\r\n"), "equal"),
        # A table without lines is a result.
        (lambda content: content.partition(b"\n")[0] + b"\n", "gone"),
    ],
)
def test_tables_with_carriage_returns_or_without_lines(repository, capsys, change, verdict):
    for file in (repository / "reports/runs").rglob("*.csv"):
        file.write_bytes(change(file.read_bytes()))
    code, lines = lines_of(capsys)
    assert code == 0
    assert {line["verdict"] for line in lines.values()} == {verdict}


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    "revision", ["no-such", "", "HEAD~9", "main:classifier", "0" * 40, "--all"]
)
def test_an_unknown_revision_or_an_option_of_git(capsys, revision):
    error = failed(capsys, "--", revision)
    assert f"{revision}: not a revision of this repository; take one" in error


@pytest.mark.parametrize(
    ("file", "torn", "told"),
    [
        ("runs/run.json", False, "run.json: no report there, or one of an older format"),
        ("runs/finetune/seed-2/rows.csv", False, "finetune/seed-2/rows.csv: missing"),
        ("runs/finetune/seed-1/rows.csv", True, "finetune/seed-1/rows.csv: cut short"),
        ("runs/run.json", True, "run.json: not JSON (cut short?)"),
    ],
)
def test_what_is_missing_or_torn_is_named_with_its_place_and_a_remedy(
    repository, capsys, file, torn, told
):
    path = repository / "reports" / file
    if torn:
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.unlink()
    error = failed(capsys, "HEAD")
    assert error.startswith("error: working tree: reports")
    assert f"{told}; run `dvc repro`" in error
    git(repository, "commit", "-qam", "spoilt")
    put(repository)
    error = failed(capsys, "HEAD")
    assert error.startswith("error: HEAD: reports")
    assert f"{told}; take another revision" in error


def test_no_repository_and_not_in_its_root(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "params.yaml: not found; run from the repository's root" in failed(capsys, "HEAD")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "not a git repository" in failed(capsys, "HEAD")


def test_as_a_command_nothing_is_written_and_the_tree_stays_as_it_is(repository):
    put(repository, size=9000)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def state():
        names = sorted(path for path in repository.rglob("*") if ".git" not in path.parts)
        return {path: path.read_bytes() for path in names if path.is_file()}

    before = state()
    command = [sys.executable, "-m", "stages.tools.compare", "HEAD"]
    for form, start in (([], "HEAD ("), (["--markdown"], "**HEAD ("), (["--json"], "{")):
        done = subprocess.run(
            [*command, *form], env=environment, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 1, done.stderr
        assert done.stdout.startswith(start)
        assert done.stderr == ""
    assert state() == before


def test_a_report_of_an_older_format_is_compared_in_what_both_have(repository, capsys):
    """Columns and whole networks had other names; latencies had a table per seed, and no engine."""
    runs = repository / "reports/runs"
    for file in runs.rglob("rows.csv"):
        header, _, lines = file.read_text(encoding="utf-8").partition("\n")
        for new, old in (("macs", "multiply_adds"), ("repetitions", "runs"), ("engine", "odd")):
            header = header.replace(new, old)
        lines = lines.replace(",.all,", ",all,")
        file.write_text(f"{header}\n{lines}", encoding="utf-8")
    (runs / "latency_bench/seed-0").mkdir()
    (runs / "latency_bench/rows.csv").rename(runs / "latency_bench/seed-0/rows.csv")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "older")
    put(repository)
    code, lines = lines_of(capsys)
    assert code == 0
    for metric, line in lines.items():
        assert line["verdict"] == ("new" if metric.startswith("latency_ms") else "equal")
