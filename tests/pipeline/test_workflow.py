"""Experiments, and the workflow's steps, as a runner would take them, for one of them."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.conftest import ROOT, Repository

FILE = ROOT / ".github/workflows/ci.yml"
JOBS = yaml.safe_load(FILE.read_text(encoding="utf-8"))["jobs"]
STEPS = {step["name"]: step for step in JOBS["reproduce"]["steps"] if "name" in step}
# All that is run, but installs and other people's actions.
BELONGS, RUN, AGAIN, SUMMARY = STEPS


def evaluated(expression: str, runner: SimpleNamespace) -> object:
    """A `${{ … }}` of GitHub's, in so far as Python's words for the same are enough."""
    body = expression.removeprefix("${{").removesuffix("}}").replace("!cancelled()", "True")
    body = body.replace("&&", "and").replace("||", "or")
    return eval(body.strip(), {"format": str.format} | vars(runner))


def run_job(
    repository: Repository, folder: Path, event: str, base: str = "", names: Iterable[str] = STEPS
) -> dict[str, str]:
    """Takes steps of `reproduce`; the outcome of each by its name. Leaves summary.md."""
    runner = SimpleNamespace(
        github=SimpleNamespace(event_name=event, base_ref=base),
        steps=SimpleNamespace(run=SimpleNamespace(outcome="success")),
    )
    outcomes: dict[str, str] = {}
    for name in names:
        step, outcome = STEPS[name], "skipped"
        if evaluated(step["if"], runner) if "if" in step else "failure" not in outcomes.values():
            variables = {
                key: str(evaluated(value, runner)) for key, value in step.get("env", {}).items()
            }
            done = repository.run(
                "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"],
                GITHUB_STEP_SUMMARY=str(folder / "summary.md"), **variables,
            )  # fmt: skip
            outcome = "failure" if done.returncode else "success"
            print(name, done.stdout[-2000:], done.stderr[-2000:])
        outcomes[name] = outcome
        if "id" in step:
            setattr(runner.steps, step["id"], SimpleNamespace(outcome=outcome))
    return outcomes


# What a worker of the queue does, without the half minute for which it waits for more.
WORKER = """
import dvc_task.proc.tasks
from dvc.repo import Repo
from dvc.repo.experiments.queue import tasks
queue = Repo().experiments.celery_queue
assert queue.celery
(entry,) = queue.iter_queued()
tasks.run_exp(entry.asdict())
"""


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory):
    """A repository in which an experiment was queued and run; `result` is its commit."""
    repository = tiny.copy(tmp_path_factory.mktemp("experiment") / "repository")
    queued = repository.dvc("exp", "run", "--queue", "-S", "report.confidence=0.9")
    for command in (queued, [sys.executable, "-c", WORKER]):
        done = repository.run(*command)
        assert done.returncode == 0, done.stderr
    ended = repository.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps")
    repository.result = ended.stdout.strip()
    return repository


def test_a_queued_experiment_runs_in_a_folder_of_its_own(experiment):
    changed = experiment.run("git", "diff", "--name-only", "HEAD", experiment.result).stdout
    assert {"dvc.lock", "params.yaml", "reports/report.md"} <= set(changed.splitlines())
    assert experiment.run("git", "status", "--porcelain").stdout == ""


def test_a_pull_request_is_compared_with_its_target_and_a_push_with_itself(experiment, tmp_path):
    """All that differs between the two is what the summary compares with."""
    experiment.run("git", "branch", "change", experiment.result)
    pulled = experiment.clone(tmp_path / "clone")
    pulled.run("git", "checkout", "--quiet", "change")
    outcomes = run_job(pulled, tmp_path, "pull_request", "main")
    assert set(outcomes.values()) == {"success"}
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "## Metrics against origin/main" in summary
    assert "report.confidence" in summary
    assert run_job(pulled, tmp_path, "push", names=[SUMMARY]) == {SUMMARY: "success"}
    pushed = (tmp_path / "summary.md").read_text(encoding="utf-8").removeprefix(summary)
    assert "## Metrics against HEAD" in pushed
    assert "report.confidence" not in pushed


def test_a_run_that_is_stale_or_fails_is_not_compared(tiny, tmp_path):
    """Its reports are those of the commit: they would be found equal to themselves."""
    failing = tiny.clone(tmp_path / "clone")
    # test_changes.py shows that an edit of any package is named; here, that this is a failure.
    module = failing.path / "stages/lib/training/loop.py"
    module.write_text(module.read_text(encoding="utf-8") + "# another version\n", encoding="utf-8")
    skipped = dict.fromkeys((RUN, AGAIN, SUMMARY), "skipped")
    assert run_job(failing, tmp_path, "push") == {BELONGS: "failure"} | skipped
    # Where that check has passed and the run itself fails.
    failing.run("git", "checkout", "--quiet", "stages")
    script = failing.path / "stages/probe.py"
    script.write_text("raise SystemExit(1)\n", encoding="utf-8")
    expected = {BELONGS: "success"} | skipped | {RUN: "failure"}
    assert run_job(failing, tmp_path, "push") == expected
    assert not (tmp_path / "summary.md").exists()


def test_the_tests_are_what_ci_run_runs():
    assert [step for step in JOBS["test"]["steps"] if step.get("run") == "bash .ci/run"]
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert lines[-3:] == ["ruff check .", "ruff format --check .", "pytest"]


def test_the_workflow_is_one_of_github():
    """By the schema that check-jsonschema has; the workflow runs actionlint, which knows more."""
    command = ["check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(FILE)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout
