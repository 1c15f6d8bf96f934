"""How every stage is run: `python -m stages.NAME [--seed N]`, errors for people, exit code 2.

The commands of stages/tools say their errors in the same way.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from stages.lib import outputs, paths
from stages.lib import params as parameters
from stages.lib.errors import UserError


def _note_time(arguments: argparse.Namespace, seconds: float) -> None:
    """What the report tells of the stages' times; beside their outputs, which repeat."""
    stage = sys.modules["__main__"].__spec__
    if stage is None or not stage.name.startswith("stages."):
        return  # called by something else than `python -m stages.NAME`
    file = paths.time_file(stage.name.rpartition(".")[2], getattr(arguments, "seed", None))
    file.parent.mkdir(parents=True, exist_ok=True)
    outputs.write_json(file, {"seconds": round(seconds, 1)})


@contextmanager
def errors_for_people(interrupted: str = "interrupted") -> Iterator[None]:
    """A UserError becomes its lines on stderr and exit code 2, as does a file that cannot be read
    or written; Ctrl-C the line `interrupted` and exit code 130.
    """
    try:
        yield
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def run_stage(
    main: Callable[..., None],
    *,
    reads: Sequence[str],
    per_seed: bool = False,
    argv: Sequence[str] | None = None,
) -> None:
    """Validates params.yaml whole, then calls `main(params)`, or `main(params, seed)` per seed.

    `params` has the sections named in `reads` and no other. Errors are told by
    `errors_for_people`.
    """
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    if per_seed:
        parser.add_argument("--seed", type=int, required=True, help="one of params.yaml's seeds")
    arguments = parser.parse_args(argv)
    start = time.perf_counter()
    with errors_for_people("interrupted: nothing of this stage was written"):
        if per_seed:
            seeds = parameters.read("seeds").seeds
            if arguments.seed not in seeds:
                known = ", ".join(map(str, seeds))
                raise UserError(f"--seed {arguments.seed}: not among params.yaml's seeds ({known})")
            main(parameters.read(*reads), arguments.seed)
        else:
            main(parameters.read(*reads))
        _note_time(arguments, time.perf_counter() - start)
