"""Tells errors to people. Imports only the standard library, so that it works in any Python."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ENVIRONMENT = (
    "activate the environment in which requirements.txt is installed (`. .venv/bin/activate`)"
)

_JOINERS = "\u200c\u200d"


class UserError(Exception):
    """A mistake in the params, the data or the files of a run, which the user has to correct.

    Its text is one line per problem: what is wrong, where, and what to do.
    """


def reason(error: BaseException) -> str:
    """The first line of any error's text, shortened; its type if it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def printable(name: str) -> str:
    """A name as it may be shown: control characters, marks that turn the direction of writing, and
    bytes that are not UTF-8 are escaped. The joiners of Persian words and of emoji stay.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        letter
        if letter.isprintable() or letter in _JOINERS
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


@contextmanager
def told(interrupted: str = "interrupted") -> Iterator[None]:
    """Turns errors into lines on stderr: a UserError, or a file that cannot be read or written,
    gives exit code 2; Ctrl-C gives the line `interrupted` and exit code 130.
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
    """From here on, Ctrl-C and a library that is not installed give a line instead of a traceback,
    also outside of `told`. Exits if Python is too old.
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
