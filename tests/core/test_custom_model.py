"""The user's own network: found, fingerprinted without being run, and called."""

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from stages.lib.core import custom_model
from stages.lib.core.errors import UserError

OFFERED = {"num_classes": 3, "in_channels": 1, "image_size": 8}
# Says what it was given.
ECHO = "def make({takes}):\n    return dict({gives})\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> str:
    """Writes the file and names its factory `make`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"{path.relative_to(Path.cwd())}:make"


def refused(name: str) -> str:
    with pytest.raises(UserError) as caught:
        custom_model.call(name, OFFERED)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        *((name, True) for name in ("net.py:make", "../x.py:f_1", "C:\\x.py:make", "a:b/x.py:f")),
        *((name, False) for name in ("resnet18", "net.py", "net:make", "net.py:", "", "x.py:a.b")),
    ],
)
def test_a_file_and_a_factory_are_an_own_network(name, is_own):
    assert custom_model.is_own(name) is is_own


# What net.py says, what parts/blocks.py says, and the file that is reached so.
REACHED = [
    ("import blocks", "", "blocks.py"),
    ("from blocks import layer", "", "blocks.py"),
    ("from parts.blocks import layer", "", "parts/blocks.py"),
    ("from parts import blocks", "", "parts/blocks.py"),
    ("import parts.blocks", "", "parts/__init__.py"),
    ("def make():\n    import blocks", "", "blocks.py"),
    ("import parts.blocks", "from . import sizes", "parts/sizes.py"),
    ("import parts.blocks", "from .sizes import width", "parts/sizes.py"),
    ("import parts.blocks", "from deep.sizes import width", "deep/sizes.py"),
    ("import parts.blocks", "import sizes", "sizes.py"),
]


@pytest.mark.parametrize(("statement", "inner", "file"), REACHED)
def test_the_fingerprint_follows_what_is_imported_from_the_files_folder(
    folder, statement, inner, file
):
    name = write(folder / "net.py", statement)
    write(folder / "parts/__init__.py", "")
    write(folder / "deep/__init__.py", "")
    write(folder / "parts/blocks.py", inner)
    fingerprints = set()
    for text in ("x = 1\n", "x = 2\n"):
        write(folder / file, text)
        fingerprints.add(custom_model.fingerprint(name))
    assert len(fingerprints) == 2


# What net.py says, and the file that it reads so.
READS = [
    ('open("cfg.json")', "cfg.json"),
    ('open(HERE / "cfg.json")', "cfg.json"),
    ('open(HERE / "configs" / name)', "configs/small.json"),
    ('open(HERE.joinpath("deep", "er", "cfg.json"))', "deep/er/cfg.json"),
    ('open(HERE / f"{name}.json")', "small.json"),
    ('open(HERE / (name + ".json"))', "deep/small.json"),
    ('load("weights/mine.pt")', "weights/mine.pt"),
    ('load("../outside/w.pt")', "../outside/w.pt"),
    ('import blocks\n# open("x")', "of_blocks.yaml"),
]


@pytest.mark.parametrize(("statement", "file"), READS)
def test_the_fingerprint_follows_what_the_code_names(folder, statement, file):
    name = write(folder / "nets/net.py", f"{statement}\n")
    write(folder / "nets/blocks.py", "CONFIG = 'of_blocks.yaml'\n")
    fingerprints = set()
    for text in ("1", "2"):
        write(folder / "nets" / file, text)
        write(folder / "nets/another.txt", text)
        fingerprints.add(custom_model.fingerprint(name))
    assert len(fingerprints) == 2
    (folder / "nets" / file).write_text("1")
    write(folder / "nets/another.txt", "3")
    assert custom_model.fingerprint(name) in fingerprints


@pytest.mark.parametrize("place", [".", ".dvc/tmp/exps/tmp1"])
def test_a_file_that_git_does_not_track_is_missing_in_a_copy_with_advice(
    folder, place, monkeypatch
):
    (folder / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder / place)
    message = refused(write(Path.cwd() / "net.py", "def make():\n    open('w.pt')\n"))
    assert "FileNotFoundError" in message
    advised = (
        "in a copy of what Git tracks: track that file, or give model.name an absolute" in message
    )
    assert advised is (place != ".")


@pytest.mark.parametrize("place", [".", ".dvc/tmp/exps/tmp1"])
def test_in_a_copy_for_an_experiment_the_fingerprint_is_the_same(folder, place, monkeypatch):
    (folder / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder / place)
    write(Path.cwd() / "net.py", "open('cfg.json')\n")
    write(Path.cwd() / "cfg.json", "{}")
    assert custom_model.fingerprint("net.py:make").startswith("b7d3c301fb53")


@pytest.mark.parametrize("text", ["~nobody/x.json", "ü" * 290, "a\\x00b.json", "*[", "..", "{}.pt"])
def test_texts_that_name_no_file_do_no_harm(folder, text):
    before = custom_model.fingerprint(write(folder / "net.py", f"x = '{text}'\n"))
    write(folder / "more/another.json", "1")
    assert custom_model.fingerprint("net.py:make") == before


def test_results_and_hidden_files_are_not_followed(folder):
    name = write(folder / "net.py", "x = ['artifacts', 'a.json', '.git', 'data/prepared', '']\n")
    before = custom_model.fingerprint(name)
    for place in ("artifacts/a.json", ".git/a.json", ".venv/a.json", "data/prepared/a.json"):
        write(folder / place, "1")
    assert custom_model.fingerprint(name) == before


def test_files_whose_names_are_not_in_the_code_are_told(folder):
    for file in ("known.json", "secret.json", "written.json", ".hidden.json"):
        write(folder / "nets" / file, "{}")
    text = """
from pathlib import Path
import json
HERE = Path(__file__).parent
def make():
    open(HERE / "known.json")
    open(HERE / "".join(["secret", chr(46), "json"]))
    open(HERE / (chr(46) + "hidden" + chr(46) + "json"))
    open(HERE / ("written" + chr(46) + "json"), "w")
"""
    name = write(folder / "nets/net.py", text)
    custom_model.call(name, OFFERED)
    (folder / "nets/written.json").read_text()  # not by the factory
    assert custom_model.unwatched(name) == [Path("secret.json")]


@pytest.mark.parametrize("reads", ["numpy import load_file", "torch import load_file"])
def test_files_that_safetensors_opens_are_told(folder, reads):
    """It opens them in a library of its own, of which Python does not hear."""
    (folder / "nets").mkdir()
    save_file({"x": np.zeros(3)}, folder / "nets/given.safetensors")
    text = f"""
from pathlib import Path
from safetensors.{reads}
def make():
    return load_file(Path(__file__).parent / "".join(["given", chr(46), "safetensors"]))
"""
    name = write(folder / "nets/net.py", text)
    before = safetensors.safe_open
    assert custom_model.call(name, OFFERED)["x"].shape == (3,)
    assert custom_model.unwatched(name) == [Path("given.safetensors")]
    assert safetensors.safe_open is before


def test_the_fingerprint_is_of_the_file_itself_and_of_no_other(folder):
    name = write(folder / "net.py", "import os, torch\nfrom json import loads\n")
    before = custom_model.fingerprint(name)
    write(folder / "unused.py", "x = 1\n")
    write(folder / "torch.txt", "x")
    assert custom_model.fingerprint(name) == before
    write(folder / "net.py", "import os, torch\nfrom json import loads\n\n")
    assert custom_model.fingerprint(name) != before


def test_the_fingerprint_does_not_depend_on_the_place_or_the_factory(folder):
    for place in ("one", "other"):
        write(folder / place / "net.py", "from blocks import layer\n")
        write(folder / place / "blocks.py", "layer = 1\n")
    names = (f"{folder}/one/net.py:make", "one/net.py:another", "one/../other/net.py:make")
    assert len(set(map(custom_model.fingerprint, names))) == 1


def test_moving_a_line_from_one_file_to_another_changes_the_fingerprint(folder):
    fingerprints = set()
    for net, blocks in (("x = 1\n", "y = 1\n"), ("", "x = 1\ny = 1\n")):
        write(folder / "blocks.py", blocks)
        name = write(folder / "net.py", f"import blocks\n{net}")
        fingerprints.add(custom_model.fingerprint(name))
    assert len(fingerprints) == 2


@pytest.mark.parametrize("content", [b"def make(:\n", b"\xff\xfe\x00", b"x = '\x00'", b""])
def test_what_is_no_python_has_a_fingerprint_of_its_own(folder, content):
    name = write(folder / "net.py", "x = 1")
    before = custom_model.fingerprint(name)
    (folder / "net.py").write_bytes(content)
    assert custom_model.fingerprint(name) not in (None, before)


def test_a_missing_file_has_none_and_nothing_is_run(folder):
    assert custom_model.fingerprint(f"{folder / 'net.py'}:make") is None
    (folder / "folder.py").mkdir()
    assert custom_model.fingerprint(f"{folder / 'folder.py'}:make") is None
    # Modules that import each other, too.
    write(folder / "blocks.py", "import net\n")
    assert custom_model.fingerprint(write(folder / "net.py", "import blocks\n1 / 0\n"))


@pytest.mark.parametrize(
    ("takes", "gives", "expected"),
    [
        ("", "", {}),
        ("num_classes", "n=num_classes", {"n": 3}),
        ("*, in_channels", "c=in_channels", {"c": 1}),
        ("image_size=None, depth=4", "s=image_size, d=depth", {"s": 8, "d": 4}),
        ("**others", "**others", OFFERED),
        ("*others", "count=len(others)", {"count": 0}),
    ],
)  # fmt: skip
def test_a_factory_is_given_what_its_signature_takes(folder, takes, gives, expected):
    name = write(folder / "net.py", ECHO.format(takes=takes, gives=gives))
    assert custom_model.call(name, OFFERED) == expected


FACTORIES = """
from __future__ import annotations
import functools
from dataclasses import dataclass, field

def wrap(function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapped

@wrap
def make(num_classes, depth=1):
    return num_classes, depth

deep = functools.partial(make, depth=9)

@dataclass
class Net:
    num_classes: int
    widths: list[int] = field(default_factory=lambda: [4])
"""


def test_classes_partials_and_decorated_functions_are_factories(folder):
    name = write(folder / "net.py", FACTORIES)
    assert custom_model.call(name, OFFERED) == (3, 1)
    assert custom_model.call(name.replace(":make", ":deep"), OFFERED) == (3, 9)
    assert custom_model.call(name.replace(":make", ":Net"), OFFERED).num_classes == 3


def test_files_of_the_same_name_in_different_folders_are_told_apart(folder):
    text = "import blocks\ndef make():\n    import late\n    return blocks.x, late.x\n"
    names = {}
    for place in ("one", "other"):
        names[place] = write(folder / place / "net.py", text)
        write(folder / place / "blocks.py", f"x = '{place}'\n")
        write(folder / place / "late.py", f"x = '{place}'\n")
    for place in ("one", "other", "one"):
        assert custom_model.call(names[place], OFFERED) == (place, place)


def test_the_process_is_as_it_was_whatever_the_file_does(folder):
    path, modules, json = list(sys.path), set(sys.modules), sys.modules["json"]
    sound = "import sys\nsys.path.append('/nowhere')\ndef make():\n    sys.path.clear()\n"
    custom_model.call(write(folder / "json.py", sound), OFFERED)
    refused(write(folder / "bad.py", "import sys\nsys.path.insert(0, '/nowhere')\n1 / 0\n"))
    assert sys.path == path
    assert sys.modules["json"] is json
    assert not {name for name in set(sys.modules) - modules if "bad" in name}


def test_a_missing_file_says_where_paths_start_and_a_missing_factory_what_there_is(folder):
    assert "not found; give a path from the repository's root" in refused(f"{folder}/net.py:make")
    text = "from os.path import join\nimport math\nclass Net:\n    pass\ndef build():\n    pass\n"
    assert "by the name make; it has Net, build" in refused(write(folder / "net.py", text))
    assert "it has no function" in refused(write(folder / "net.py", "make = 3\n"))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\n1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("x = 1\n\ndef make(:\n", 3, "invalid syntax"),
        ("import no_such_module_anywhere\n", 1, "; install it in this environment"),
        ("def make():\n    x = {}\n    return x['key']\n", 3, "KeyError: 'key'"),
        ("def make():\n    raise RuntimeError\n", 2, "RuntimeError: no message"),
        ("def make():\n    raise ValueError('one\\ntwo')\n", 2, "ValueError: one"),
        ("def inner():\n    1 / 0\n\ndef make():\n    inner()\n", 2, "ZeroDivisionError"),
        ("import json\ndef make():\n    json.loads('{')\n", 3, "JSONDecodeError"),
        ("import blocks\n", 2, "invalid syntax"),
        ("import sys\nsys.exit('usage: net.py')\n", 2, "SystemExit: usage: net.py"),
    ],
)
def test_what_the_users_code_raises_is_told_with_file_and_line(folder, text, line, said):
    write(folder / "blocks.py", "x = 1\nx = = 2\n")
    message = refused(write(folder / "net.py", text))
    assert message.startswith("model.name: ")
    file = "blocks.py" if "blocks" in text else "net.py"
    assert f"{file}, line {line}: " in message
    assert said in message


def test_a_factory_that_wants_more_than_is_offered_says_what(folder):
    name = write(folder / "net.py", "def make(num_classes, depth):\n    pass\n")
    message, _, hint = refused(name).rpartition(";")
    assert f"{name}(num_classes=3)" in message
    assert "missing 1 required positional argument: 'depth'" in message
    assert "is given those of num_classes" in hint
