"""Runs a stage that consists of arms: parts that depend on no other part, such as the training of
one network. Workers do the arms; the stage's own process writes everything and imports no torch, so
that it takes a fifth of a second where all arms are done. Scripts import torch within their arms.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

from stages.lib.arms import ahead, engine, joining, scratch, worker
from stages.lib.arms.scratch import Scratch
from stages.lib.arms.worker import Refused, Task
from stages.lib.core import hardware, outputs, paths, pipeline, progress, records, timing
from stages.lib.core import params as parameters
from stages.lib.core.errors import UserError
from stages.lib.core.stage import Stage, Watch, run_stage

Tables = Mapping[str, Sequence[str]]


# How many arms at work are named.
NAMED = 2


class Arm(NamedTuple):
    """A part of a stage.

    label: names it in errors.
    function: of the stage's script. It is called with a Context and the arguments, and leaves its
        results and files there.
    arguments: plain values.
    trained: the networks that it trains, by `trained`, if it does nothing else. It is not run if
        there are no training images; then their lines say so.
    """

    label: str
    function: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    trained: Sequence[Mapping[str, Any]] = ()


def trained(
    method: str, values: Iterable[float], column: str = "target_sparsity"
) -> list[dict[str, Any]]:
    """The networks that an arm trains: their method and, for each, a column of records.REFUSED."""
    return [{"method": method, column: value} for value in values]


class Kept(NamedTuple):
    """An arm's task, its number in its stage, and where its files are kept."""

    task: Task
    number: int
    scratch: Scratch


class ArmedStage(Stage):
    """A stage for one seed that consists of arms."""

    @cached_property
    def engine(self) -> parameters.Engine:
        """Where arms run, which changes no result."""
        return parameters.read("engine").engine

    @cached_property
    def machine(self) -> dict[str, Any]:
        """What may change results beside params and files."""
        return hardware.describe()

    @cached_property
    def scratch(self) -> Scratch:
        """What is kept of its arms."""
        declared = pipeline.declared(self.name)
        (output,), deps = declared.outs(self.seed), declared.deps(self.seed)
        watch = Watch(deps, self.params)
        key = scratch.key(self.name, self.seed, self.params, deps, self.machine)
        return Scratch(output, key, watch.check)

    def missing(self, arms: Sequence[Arm], *, ahead: bool = False) -> list[Kept]:
        """The arms that have not finished. ahead: whether another run of a stage asks."""
        kept = self.scratch
        return [
            Kept(
                Task(
                    stage=self.name,
                    seed=self.seed,
                    key=kept.key,
                    params=self.params,
                    output=kept.output.as_posix(),
                    label=arm.label,
                    function=arm.function.__name__,
                    arguments=arm.arguments,
                    root=os.getcwd(),  # noqa: PTH109  a plain value
                    states=kept.states(number).as_posix(),
                    seconds=60 * self.engine.state_minutes,
                    machine=self.machine,
                    ahead=ahead,
                ),
                number,
                kept,
            )
            for number, arm in enumerate(arms)
            if not (kept.place(number).exists() or self.refuses(arm, number))
        ]

    def refuses(self, arm: Arm, number: int) -> bool:
        """Whether the arm would train and there are no training images. Then it has lines that say
        so.
        """
        if not (arm.trained and self.without_training_images):
            return False
        # A network for all seeds is drawn by the first.
        told = (
            records.refusal(self.seed or 0, reason=records.NO_TRAINING_IMAGES, **network)
            for network in arm.trained
        )
        table = outputs.table_text(records.REFUSED, told)
        self.scratch.keep(number, {paths.REFUSED: table.encode()})
        return True

    def ahead(self, arms: Sequence[Arm]) -> list[Kept]:
        """The missing arms of other runs that are ready, if free workers may do them too."""
        several = engine.workers(self.engine, self.params.compute) > 1
        if self.seed is None or not self.engine.ahead:
            return []
        if not (several or self.engine.name == "ray"):
            return []
        found = []
        for name, seed in ahead.ready(self.name, self.seed):
            own = name == self.name
            params = self.params if own else parameters.read(*pipeline.declared(name).params)
            if theirs := arms if own else ahead.arms_of(name, params):
                other = ArmedStage(name, seed, params, {})
                other.machine = self.machine
                found += [] if other.scratch.done() else other.missing(theirs, ahead=True)
        return found

    def tell_of_going_on(self, finished: int, count: int, missing: Sequence[Kept]) -> None:
        """Prints a line if the stage was killed before: what it does not do again. finished: of
        `count` arms. missing: of this seed.
        """
        done = [f"{finished} of {count} arms are done"] if finished else []
        for kept in missing:
            (Path(kept.task.states) / worker.PROGRESS).unlink(missing_ok=True)
            if point := scratch.reached(Path(kept.task.states)):
                done.append(f"{kept.task.label} from epoch {point[0]} of {point[1]}")
        if missing and done:
            run = timing.key((self.name, self.seed))
            print(f"{run}: goes on: {', '.join(done)}", flush=True)

    def run(self, arms: Sequence[Arm], tables: Tables, told: Callable[[Path], str]) -> None:
        """Runs what has not finished, and joins the arms in the stage's output. Raises UserError if
        an arm does; then the others are cancelled.
        """
        own = self.scratch
        own.remove_outdated()
        finished = sum(own.place(number).exists() for number in range(len(arms)))
        missing = self.missing(arms)
        self.tell_of_going_on(finished, len(arms), missing)
        missing += self.ahead(arms) if missing else []
        tasks = [kept.task for kept in missing]
        at_work = None
        if engine.apart(tasks, self.engine, self.params.compute):
            at_work = partial(_at_work, tasks)
        results = engine.run(tasks, self.engine, self.params.compute)
        shown = progress.shown(results, self.name, "arm", len(missing), at_work)
        with closing(results), closing(shown):
            for number, result in shown:
                kept = missing[number]
                # What is wrong with an arm of another run is told when that one runs.
                with suppress(UserError) if kept.task.ahead else nullcontext():
                    if isinstance(result, Refused):
                        raise UserError(result.text)
                    kept.scratch.keep(kept.number, result)
        joining.join([own.place(number) for number in range(len(arms))], self.directory, tables)
        made = told(self.directory) if arms else "not asked for"
        refused = (self.directory / paths.REFUSED).read_text(encoding="utf-8").count("\n") - 1
        missing = f"{refused} could not be made" if refused else ""
        self.result = ", ".join(filter(None, [made, missing]))

    def close(self) -> None:
        self.scratch.close()


def _at_work(tasks: Sequence[Task]) -> str:
    """How far the first few of these tasks are that workers do."""
    found = [f"{task.name}: {told}" for task in tasks if (told := worker.progress_of(task))]
    more = [f"{len(found) - NAMED} more"] if len(found) > NAMED else []
    return "; ".join([*found[:NAMED], *more])


def run_arms(
    arms: Callable[[SimpleNamespace], Iterable[Arm]],
    tables: Tables = MappingProxyType({}),
    told: Callable[[Path], str] = lambda folder: records.told(records.read(folder / paths.ROWS)),
    **options: Any,
) -> None:
    """Runs a stage that consists of arms, as `run_stage` does.

    arms: of the stage's script: from its params to its arms, in the order of their rows.
    tables: the columns of the stage's own tables, by file: they are there even if no arm is.
    told: what is said of the stage's output on the terminal.
    options: of `run_stage`.
    """

    def main(stage: ArmedStage) -> None:
        stage.run(list(arms(stage.params)), tables, told)

    main.__module__ = arms.__module__
    run_stage(main, ArmedStage, **options)
