"""How errors are told to people. Imports the standard library alone: it is there in any Python."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

ENVIRONMENT = (
    "activate the environment in which requirements.txt is installed (`. .venv/bin/activate`)"
)


class UserError(Exception):
    """A mistake in the params, the data or the files of a run, which a person has to mend.

    Its text is one line per problem: what is wrong, where, and what to do.
    """


@contextmanager
def told(interrupted: str = "interrupted") -> Iterator[None]:
    """Tells errors to people: a UserError becomes its lines on stderr and exit code 2, as does a
    file that cannot be read or written; Ctrl-C becomes the line `interrupted` and exit code 130.
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


def tell_while_importing() -> None:
    """From here on, Ctrl-C and a library that is not installed are a line, not a traceback, outside
    of `told` too. Ends a Python that is too old.
    """
    if sys.version_info < (3, 11):  # noqa: UP036  it is what this asks
        sys.exit(
            f"error: Python {sys.version.split()[0]} is too old, 3.11 is needed; {ENVIRONMENT}"
        )
    usual = sys.excepthook

    def hook(kind, error, trace):
        library = (getattr(error, "name", None) or "stages").partition(".")[0]
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        elif issubclass(kind, ModuleNotFoundError) and library != "stages":
            print(f"error: {sys.executable} has no {library}; {ENVIRONMENT}", file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = hook
