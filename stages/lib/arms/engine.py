"""Runs arms: in the stage's own process, in processes of this machine (concurrent.futures), or on a
cluster (Ray). Where an arm runs changes no result.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess

from stages.lib.arms import worker
from stages.lib.arms.worker import Refused, Task
from stages.lib.core import hardware
from stages.lib.core.errors import UserError, reason
from stages.lib.core.params import Compute, Engine

Result = dict[str, bytes] | Refused
Finished = Iterator[tuple[int, Result]]
PRELOADED = ["stages.lib.arms.preload"]
# Python's tracker of semaphores would tell of those that a killed stage leaves, and removes them.
SILENT = "ignore::UserWarning:multiprocessing.resource_tracker"
# How often Ray starts an arm again whose worker or node is lost.
RETRIES = 2
SECONDS_TO_ANSWER = 10
AGAIN = "arms that had finished are kept; run `dvc repro` again"


def gpus(device: str) -> int:
    """The GPUs that arms may use. device: of the params section `compute`."""
    return 0 if device == "cpu" else len(hardware.cuda_devices())


def workers(engine: Engine, compute: Compute) -> int:
    """How many arms run at a time, if they run on this machine: as many as asked; else one per GPU,
    or without a GPU one per `threads` cores. One, if several ranks work on each.
    """
    if compute.ranks > 1:
        return 1
    if engine.workers != "auto":
        return engine.workers
    return gpus(compute.device) or max(1, hardware.cores() // compute.threads)


def run(tasks: Sequence[Task], engine: Engine, compute: Compute) -> Finished:
    """Yields the index of each task and its result, in the order in which they end. The workers are
    gone when the iterator is closed or has raised.

    Raises UserError if a worker is lost.
    """
    if engine.name == "ray":
        return _on_ray(tasks, engine, compute)
    if apart(tasks, engine, compute):
        count = min(len(tasks), workers(engine, compute))
        return _in_processes(tasks, count, gpus(compute.device))
    return _here(tasks)


def apart(tasks: Sequence[Task], engine: Engine, compute: Compute) -> bool:
    """Whether arms run in other processes than the stage's."""
    return engine.name == "ray" or min(len(tasks), workers(engine, compute)) > 1


def _here(tasks: Sequence[Task]) -> Finished:
    worker.forget()
    for number, task in enumerate(tasks):
        yield number, worker.run(task)


def _start_server() -> None:
    """Starts the process that forks the workers, in which Ctrl-C is blocked, as it is then in them:
    the stage alone answers to it.
    """
    sys.warnoptions.append(SILENT)
    resource_tracker.ensure_running()  # here, because it would unblock Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _begin(numbers: multiprocessing.Queue) -> None:
    """What a worker does first. numbers: for each worker the GPU that it may use, or none."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    number = numbers.get()
    if number is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = number


def _numbers(count: int, gpus: int) -> list[str | None]:
    """The GPU of each worker, as CUDA_VISIBLE_DEVICES names it; None without GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return [names[worker % gpus] if gpus else None for worker in range(count)]


def _killed(tasks: Sequence[Task], processes: Sequence[BaseProcess]) -> UserError:
    """The error that names the arms whose workers were killed. tasks: those that had not ended."""
    # The pool ends the other workers by SIGTERM.
    killed = {one.pid for one in processes if one.exitcode not in (None, 0, -signal.SIGTERM)}
    killed = killed or {one.pid for one in processes}
    at_work = [task for task in tasks if worker.process_of(task) in killed]
    names = ", ".join(task.name for task in at_work) or f"{tasks[0].stage}: an arm"
    return UserError(
        f"{names}: its worker was killed; if memory ran out, set engine.workers below"
        f" {len(processes)}; {AGAIN}"
    )


def _in_processes(tasks: Sequence[Task], count: int, gpus: int) -> Finished:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    _start_server()
    numbers = context.SimpleQueue()
    for number in _numbers(count, gpus):
        numbers.put(number)
    others = set(multiprocessing.active_children())
    processes: list[BaseProcess] = []
    waiting: dict[Future, int] = {}
    pool = ProcessPoolExecutor(count, context, _begin, (numbers,))
    try:
        for number, task in enumerate(tasks):
            waiting[pool.submit(worker.run_apart, task)] = number
        processes = [one for one in multiprocessing.active_children() if one not in others]
        for future in as_completed(list(waiting)):
            result = future.result()
            yield waiting.pop(future), result
    except BrokenProcessPool:
        pool.shutdown()
        raise _killed([tasks[number] for number in waiting.values()], processes) from None
    finally:
        if waiting:  # they may be at work for hours
            for process in processes:
                process.kill()
        pool.shutdown(cancel_futures=True)


def _reach(address: str) -> None:
    """Raises OSError if nothing answers at HOST:PORT. Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()


def _on_ray(tasks: Sequence[Task], engine: Engine, compute: Compute) -> Finished:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError(
            "engine.name: ray, but it is not installed; `pip install -r requirements-ray.txt`, or"
            " set it to local"
        ) from None
    # A cluster's processes do not have this one's environment.
    found = {"PYTHONPATH": os.getcwd()}  # noqa: PTH109  text
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    own = not ray.is_initialized()
    try:
        if own:
            _reach(engine.address)
            ray.init(engine.address, runtime_env={"env_vars": found}, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"engine.address: {engine.address}: no Ray cluster answers ({reason(error)}); start one"
            " with `ray start --head`"
        ) from None
    gone = ray.exceptions
    lost = (
        gone.WorkerCrashedError,
        gone.NodeDiedError,
        gone.OutOfMemoryError,
        gone.ObjectLostError,
    )
    try:
        remote = ray.remote(worker.run_apart).options(
            num_cpus=compute.ranks * compute.threads,
            # A whole GPU for each rank, if the stage would use one.
            num_gpus=compute.ranks * min(gpus(compute.device), 1),
            max_retries=RETRIES,
        )
        waiting = {remote.remote(task).future(): number for number, task in enumerate(tasks)}
        for future in as_completed(list(waiting)):
            number = waiting.pop(future)
            task = tasks[number]
            try:
                result = future.result()
            except lost as error:
                raise UserError(
                    f"{task.stage}: {task.label} (seed {task.seed}): its worker was lost"
                    f" {1 + RETRIES} times ({reason(error)}); {AGAIN}"
                ) from None
            yield number, result
    finally:
        if own:
            ray.shutdown()
