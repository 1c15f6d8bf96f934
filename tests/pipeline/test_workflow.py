"""The workflow's steps, as a runner would take them, in a clone of the tiny repository."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT, Repository

pytestmark = pytest.mark.xdist_group("pipeline")

FILE = ROOT / ".github/workflows/ci.yml"
JOBS = yaml.safe_load(FILE.read_text(encoding="utf-8"))["jobs"]
# The names of the steps that are run, which are all but installs and other people's actions.
BELONGS = "The committed lock file and report belong to this code and these params"
RUN = "Run the pipeline"
AGAIN = "A second run finds nothing to do but the probe"
SUMMARY = "Summary; a real loss fails"


def evaluated(expression: str, runner: SimpleNamespace) -> object:
    """A `${{ … }}` of GitHub's, in so far as Python's words for the same are enough."""
    body = expression.removeprefix("${{").removesuffix("}}").replace("!cancelled()", "True")
    for ours, theirs in (("and", "&&"), ("or", "||")):
        body = body.replace(theirs, ours)
    return eval(body.strip(), {"format": str.format} | vars(runner))


def run_job(repository: Repository, folder: Path, **github: str) -> dict[str, str]:
    """Takes the steps of `reproduce`; the outcome of each by its name. Leaves summary.md."""
    runner = SimpleNamespace(
        github=SimpleNamespace(**{"base_ref": ""} | github), steps=SimpleNamespace()
    )
    outcomes: dict[str, str] = {}
    for step in JOBS["reproduce"]["steps"]:
        if "uses" in step or step["run"].startswith("pip install"):
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


def test_a_push_of_what_is_committed_passes(tiny, tmp_path):
    outcomes = run_job(tiny.clone(tmp_path / "clone"), tmp_path, event_name="push")
    assert outcomes == dict.fromkeys((BELONGS, RUN, AGAIN, SUMMARY), "success")
    assert "## Metrics against HEAD" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_a_pull_request_is_compared_with_its_target(tiny, tmp_path):
    pulled = tiny.clone(tmp_path / "clone")
    pulled.run("git", "checkout", "--quiet", "-b", "change")
    pulled.change("report.confidence", 0.9)
    pulled.repro()
    pulled.commit()
    outcomes = run_job(pulled, tmp_path, event_name="pull_request", base_ref="main")
    assert outcomes == dict.fromkeys((BELONGS, RUN, AGAIN, SUMMARY), "success")
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "## Metrics against origin/main" in summary
    assert "report.confidence" in summary


@pytest.mark.parametrize("package", ["core", "training", "report"])
def test_an_edit_without_its_run_fails(tiny, tmp_path, package):
    """test_changes.py shows that an edit of any package is named; here, that this is a failure."""
    edited = tiny.clone(tmp_path / "clone")
    module = min((edited.path / f"stages/lib/{package}").glob("[a-z]*.py"))
    module.write_text(module.read_text(encoding="utf-8") + "# another version\n", encoding="utf-8")
    (step,) = [step for step in JOBS["reproduce"]["steps"] if step.get("name") == BELONGS]
    done = edited.run("bash", "-eo", "pipefail", "-c", step["run"])
    assert done.returncode == 1
    assert "run dvc repro and commit them" in done.stdout


def test_a_failed_run_is_not_compared(tiny, tmp_path):
    """Its reports are those of the commit: they would be found equal to themselves."""
    failing = tiny.clone(tmp_path / "clone")
    failing.change("model.width", 0)
    outcomes = run_job(failing, tmp_path, event_name="push")
    assert outcomes[SUMMARY] == "skipped"
    # The same where the check has passed and the run itself fails.
    failing.run("git", "checkout", "--quiet", "params.yaml")
    script = failing.path / "stages/probe.py"
    script.write_text("raise SystemExit(1)\n", encoding="utf-8")
    outcomes = run_job(failing, tmp_path, event_name="push")
    assert (outcomes[BELONGS], outcomes[RUN]) == ("success", "failure")
    assert (outcomes[AGAIN], outcomes[SUMMARY]) == ("skipped", "skipped")
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


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not on the PATH")
def test_actionlint_finds_nothing():
    done = subprocess.run(["actionlint", str(FILE)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout
