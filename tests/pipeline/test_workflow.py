"""The workflow's steps, as a runner would take them, in a clone of the tiny repository."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import yaml
from conftest import ROOT, Repository

FILE = ROOT / ".github/workflows/ci.yml"
JOBS = yaml.safe_load(FILE.read_text(encoding="utf-8"))["jobs"]
# The names of the steps that are run, which are all but installs and other people's actions.
BELONGS = "The committed lock file and report belong to this code and these params"
RUN = "Run the pipeline"
AGAIN = "A second run finds nothing to do but the probe"
SUMMARY = "Summary; a real loss fails"
STEPS = BELONGS, RUN, AGAIN, SUMMARY


def evaluated(expression: str, runner: SimpleNamespace) -> object:
    """A `${{ … }}` of GitHub's, in so far as Python's words for the same are enough."""
    body = expression.removeprefix("${{").removesuffix("}}").replace("!cancelled()", "True")
    for ours, theirs in (("and", "&&"), ("or", "||")):
        body = body.replace(theirs, ours)
    return eval(body.strip(), {"format": str.format} | vars(runner))


def run_job(
    repository: Repository, folder: Path, steps: tuple[str, ...] = STEPS, **github: str
) -> dict[str, str]:
    """Takes steps of `reproduce`; the outcome of each by its name. Leaves summary.md."""
    runner = SimpleNamespace(
        github=SimpleNamespace(**{"base_ref": ""} | github),
        steps=SimpleNamespace(run=SimpleNamespace(outcome="success")),
    )
    outcomes: dict[str, str] = {}
    for step in JOBS["reproduce"]["steps"]:
        if step.get("name") not in steps:
            continue
        wanted = "failure" not in outcomes.values()
        if "if" in step:
            wanted = evaluated(step["if"], runner)
        outcome = "skipped"
        if wanted:
            variables = {
                name: str(evaluated(value, runner)) for name, value in step.get("env", {}).items()
            }
            done = repository.run(
                "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"],
                GITHUB_STEP_SUMMARY=str(folder / "summary.md"), **variables,
            )  # fmt: skip
            outcome = "failure" if done.returncode else "success"
            print(step["name"], done.stdout[-2000:], done.stderr[-2000:])
        outcomes[step["name"]] = outcome
        if "id" in step:
            setattr(runner.steps, step["id"], SimpleNamespace(outcome=outcome))
    return outcomes


def test_a_pull_request_is_compared_with_its_target_and_a_push_with_itself(tiny, tmp_path):
    """All that differs between the two is what the summary compares with."""
    pulled = tiny.clone(tmp_path / "clone")
    pulled.run("git", "checkout", "--quiet", "-b", "change")
    pulled.change("report.confidence", 0.9)
    pulled.repro()
    pulled.commit()
    outcomes = run_job(pulled, tmp_path, event_name="pull_request", base_ref="main")
    assert outcomes == dict.fromkeys(STEPS, "success")
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "## Metrics against origin/main" in summary
    assert "report.confidence" in summary
    assert run_job(pulled, tmp_path, (SUMMARY,), event_name="push") == {SUMMARY: "success"}
    pushed = (tmp_path / "summary.md").read_text(encoding="utf-8").removeprefix(summary)
    assert "## Metrics against HEAD" in pushed
    assert "report.confidence" not in pushed


def test_a_run_that_is_stale_or_fails_is_not_compared(tiny, tmp_path):
    """Its reports are those of the commit: they would be found equal to themselves."""
    failing = tiny.clone(tmp_path / "clone")
    # test_changes.py shows that an edit of any package is named; here, that this is a failure.
    module = failing.path / "stages/lib/training/loop.py"
    module.write_text(module.read_text(encoding="utf-8") + "# another version\n", encoding="utf-8")
    outcomes = run_job(failing, tmp_path, event_name="push")
    skipped = dict.fromkeys((RUN, AGAIN, SUMMARY), "skipped")
    assert outcomes == {BELONGS: "failure"} | skipped
    # Where that check has passed and the run itself fails.
    failing.run("git", "checkout", "--quiet", "stages")
    script = failing.path / "stages/probe.py"
    script.write_text("raise SystemExit(1)\n", encoding="utf-8")
    outcomes = run_job(failing, tmp_path, event_name="push")
    assert outcomes == {BELONGS: "success"} | skipped | {RUN: "failure"}
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


def test_every_step_is_taken_here_but_installs_and_actions():
    steps = [step for step in JOBS["reproduce"]["steps"] if "run" in step]
    assert steps.pop(0)["run"].startswith("pip install")
    assert tuple(step["name"] for step in steps) == STEPS
