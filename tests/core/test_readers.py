"""Every reader of a file gives a value or one line, whatever the file holds: none hangs, none takes
memory for what a damaged header announces, and all say it in the same words.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from stages.lib.analysis import predictions, stage_tables
from stages.lib.core import hardware, outputs, prepared, records
from stages.lib.core.errors import UserError
from stages.lib.core.prepared import Part
from stages.lib.data import image_folder
from stages.lib.models import checkpoints, head, weights_file
from tests import toys

LABELS = np.arange(6) % 3


def a_table(path):
    path.write_text("file,label\nx.png,a\ny.png,b\n")
    for name in ("x.png", "y.png"):
        (path.parent / name).touch()


def some_rows(path):
    row = records.Row(
        **{name: "" if kind is str else 0 for name, kind in records.COLUMNS.items()}
        | {"method": "baseline", "test_top5": None}
    )
    records.write(path, [row])


def prepared_meta(path):
    part = Part(np.zeros((6, 1, 8, 8), np.uint8), LABELS)
    prepared.write(path.parent, dict.fromkeys(prepared.PARTS, part), list("abc"), "digits")


# What each reader reads: its name, how a sound one is written, and the reader.
READERS = {
    "x.json": (lambda path: path.write_text('{"a": [1, 2]}'), lambda p: outputs.read_json(p, "go")),
    "meta.json": (prepared_meta, lambda path: prepared.read_meta(path.parent)),
    "hardware.json": (
        lambda path: path.write_text(json.dumps(hardware.describe())), hardware.read,
    ),
    "rows.csv": (some_rows, records.read),
    "table.csv": (some_rows, lambda path: stage_tables.table(path, list(records.COLUMNS))),
    "labels.csv": (a_table, image_folder.list_images),
    "classes.json": (
        lambda path: path.write_text('{"a": 0, "b": 1}'), lambda path: head.read(path, "ab"),
    ),
    "model.safetensors": (
        lambda path: checkpoints.save_model(toys.convnet(), path), checkpoints.load_model,
    ),
    "predictions.safetensors": (
        lambda path: save_file({"baseline": torch.from_numpy(LABELS)}, path),
        lambda path: predictions.classes(path, LABELS),
    ),
    "weights.pt": (
        lambda path: torch.save(torch.nn.Linear(3, 2).state_dict(), path), weights_file.read,
    ),
    "weights.safetensors": (
        lambda path: save_file(torch.nn.Linear(3, 2).state_dict(), path), weights_file.read,
    ),
}  # fmt: skip
# Of a million of these a recursion is as deep, or a text as long.
STRANGE = [
    b"", b"\0", b"\xff" * 99, b"[" * 200_000, b'{"a":' * 200_000, b"{}", b"[]", b"null", b"NaN",
    b'{"id2label":' * 100_000, b"9" * 100_000, b'"\xed\xa0\x80"', b"a,b\n" + b"," * 100_000 + b"\n",
    b"file,label\n" + b'"' * 200_000, (2**40).to_bytes(8, "little") + b"{" * 64,
    (100_000).to_bytes(8, "little") + b"[" * 100_000,
    (30).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[',
    b"PK\3\4" + bytes(40), b"\x80\x02" + b"}" * 100_000 + b".", b"\x80\x02" + b"(" * 200_000,
]  # fmt: skip


@pytest.fixture(scope="module", params=READERS)
def file(request, tmp_path_factory):
    """A sound file, its bytes, and its reader."""
    path = tmp_path_factory.mktemp("read") / request.param
    write, read = READERS[request.param]
    write(path)
    return SimpleNamespace(path=path, content=path.read_bytes(), read=read)


def check(file, content):
    file.path.write_bytes(content)
    try:
        file.read(file.path)
    except UserError as error:
        text = str(error)
        assert "\n" not in text
        assert file.path.name in text or "data.root" in text
        return text
    return None


def test_a_sound_file_is_read_and_a_missing_one_is_told(file):
    assert check(file, file.content) is None
    file.path.unlink()
    with pytest.raises(UserError, match=r"not found|no folder and no CSV"):
        file.read(file.path)


@pytest.mark.parametrize("content", STRANGE, ids=range(len(STRANGE)))
def test_strange_content_is_refused(file, content):
    said = check(file, content)
    if file.path.name == "x.json" and content in (b"{}", b"[]", b"null", b"NaN"):
        assert said is None
    else:
        assert re.search(r"; \w|: neither JSON|names no logit|have the same logit", said)


@given(st.data())
@toys.few_examples
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_gives_a_value_or_a_line(file, data):
    content = bytearray(file.content)
    kind = data.draw(st.sampled_from(["cut", "change", "double", "insert"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        content = content[:place]
    elif kind == "change":
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    elif kind == "double":
        content = content[:place] + content[place // 2 :]
    else:
        content[place:place] = data.draw(st.binary(min_size=1, max_size=30))
    check(file, bytes(content))


def test_a_file_larger_than_any_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "MOST_JSON_BYTES", 10)
    monkeypatch.setattr(records, "MOST_BYTES", 10)
    path = Path(tmp_path / "x")
    path.write_text("[1, 2, 3, 4, 5, 6]\n")
    for read in (lambda: outputs.read_json(path, "go"), lambda: records.read(path)):
        with pytest.raises(UserError, match="more than 10 bytes; "):
            read()
