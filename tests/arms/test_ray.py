"""Arms on a Ray cluster of two nodes, which are real ones on this machine."""

import os
import signal
import sys
import time

import pytest

from tests.arms.test_same_bytes import STAGES, hashes
from tests.arms.toy_stage import OUTPUT, at_work, ended, start
from tests.conftest import IN_ONE_PROCESS, TINY, Repository

pytest.importorskip("ray")

# All stages in one process and one job of Ray, whose workers import torch once.
IN_ONE_JOB = f"""
import os, ray
ray.init(os.environ["CLUSTER"], runtime_env={{"env_vars": {{"PYTHONPATH": os.getcwd()}}}},
         log_to_driver=False)
{IN_ONE_PROCESS}
"""


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no arm, and two nodes for one arm each."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes.removable = [nodes.add_node(num_cpus=1) for _ in range(2)]
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()
    if before is None:
        del os.environ["RAY_USAGE_STATS_ENABLED"]


def on(cluster, repository):
    """The repository, whose arms run on the cluster."""
    repository.change("engine.name", "ray")
    repository.change("engine.address", cluster.address)
    return repository


def test_two_nodes_leave_the_bytes_of_one_process(cluster, tmp_path):
    repository = Repository(tmp_path / "repository", TINY)
    repository.change("sparsities", [0.6])
    repository.stages(
        "probe", "prepare_data", "train_baseline", "train_teacher", "global_prune", *STAGES
    )
    expected = hashes(repository)
    copy = on(cluster, repository.copy(tmp_path / "copy"))
    for stage in STAGES:
        (copy.path / "artifacts" / stage).rename(tmp_path / stage)
    done = copy.run(sys.executable, "-c", IN_ONE_JOB, *STAGES, CLUSTER=cluster.address)
    assert done.returncode == 0, done.stderr
    assert hashes(copy) == expected


def test_arms_whose_worker_or_node_is_lost_run_again_elsewhere(cluster, toy):
    process = start(on(cluster, toy), "wait-1", "wait-2", "fine-1")
    first, _ = at_work(toy, process, 2)
    os.kill(first, signal.SIGKILL)
    at_work(toy, process, 3)
    cluster.remove_node(cluster.removable.pop())
    (toy.path / "wait").unlink()
    assert (ended(process), process.returncode) == ("", 0)
    names = sorted(path.stem for path in (toy.path / OUTPUT).glob("*.txt"))
    assert names == ["fine-1", "wait-1", "wait-2"]


def test_ctrl_c_ends_the_job(cluster, toy):
    process = start(on(cluster, toy), "wait-1")
    (worker,) = at_work(toy, process)
    os.killpg(process.pid, signal.SIGINT)
    # Ray's own log may say that a message no longer reaches the driver.
    told = [line for line in ended(process).splitlines() if "task_manager.cc" not in line]
    assert told == ["interrupted: nothing of this stage was written"]
    while os.path.exists(f"/proc/{worker}"):  # noqa: PTH110
        time.sleep(0.01)
    assert process.returncode == 130


def test_a_cluster_that_does_not_answer_is_a_line(toy):
    toy.change("engine.name", "ray")
    toy.change("engine.address", "127.0.0.1:1")
    process = start(toy, "fine-1")
    error = ended(process)
    assert error.startswith("error: engine.address: 127.0.0.1:1: no Ray cluster answers (")
    assert (process.returncode, error.count("\n")) == (2, 1)
