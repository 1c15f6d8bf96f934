"""Two machines and a folder remote, as docs/scale.md tells: the second computes nothing."""

import re
import subprocess

import yaml

from tests import documents
from tests.conftest import ALWAYS, ROOT

PAGE = ROOT / "docs/scale.md"


def typed(heading: str) -> list[str]:
    """The shell blocks of one section of the page."""
    section = re.search(rf"## {heading}\n(.*?)(?=\n## |\Z)", PAGE.read_text(encoding="utf-8"), re.S)
    return [
        block.text
        for block in documents.blocks(PAGE)
        if block.language == "sh" and block.text in section[1]
    ]


def test_the_second_machine_computes_nothing(tiny, tmp_path):
    """Although it does not know dvc.lock: its owner changed params.yaml alike, and did not pull."""
    setup, first, second = typed("Sharing results between machines")
    one, two = tiny.copy(tmp_path / "one"), tmp_path / "two"
    environment = {"HOME": str(tmp_path)}
    for script in (setup, first):
        done = one.run("bash", "-e", "-c", script, **environment)
        assert done.returncode == 0, done.stderr
    subprocess.run(["git", "clone", "-q", one.path, two], check=True)
    two = one.at(two)
    for lock in ("dvc.lock", "probe/dvc.lock"):
        (two.path / lock).unlink()
    done = two.run("bash", "-e", "-c", second, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = set(re.findall(r"Running stage '([^']+)'", done.stdout))
    # The report is for people, so it is in Git and not in the cache; it takes seconds.
    assert ran <= ALWAYS | {"report"}
    assert two.hashes() == one.hashes()


def test_the_files_for_clusters_can_be_read():
    *_, script, job = (block for block in documents.blocks(PAGE) if block.marked)
    assert subprocess.run(["bash", "-n", "-c", script.text]).returncode == 0
    ray = yaml.safe_load(job.text)["spec"]["rayClusterSpec"]
    pods = [group["template"] for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"])]
    assert pods[0] == pods[1]
    assert pods[0]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] == "/repository"
