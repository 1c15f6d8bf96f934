"""The one row shape, to disk and back."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core import records
from stages.lib.core.errors import UserError
from stages.lib.core.records import Row

ROW = Row(
    seed=1, method="global", target_sparsity=0.5, sparsity=0.500012, parameters=1000,
    nonzero_parameters=512, macs=4_000_000, validation_accuracy=0.9, test_accuracy=0.87,
    bytes_on_disk=4321,
)  # fmt: skip
COLUMNS = [field.name for field in dataclasses.fields(Row)]
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"]))
VALUES = {int: st.integers(0, 2**62), str: NAMES, float: st.floats(0, 1)}
VALUES[float | None] = st.none() | VALUES[float]
# Not times_smaller, which has six digits in a file.
DRAWN = [field for field in dataclasses.fields(Row) if field.name != "times_smaller"]
ROWS = st.builds(Row, **{field.name: VALUES[field.type] for field in DRAWN})


@pytest.fixture
def table(tmp_path):
    """A table of two rows."""
    path = tmp_path / "rows.csv"
    records.write(path, [ROW, dataclasses.replace(ROW, seed=2, model="a.safetensors")])
    return path


def refusal(path):
    with pytest.raises(UserError) as error:
        records.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "`dvc repro`" in message
    return message


@settings(deadline=None, derandomize=True, max_examples=50)
@given(rows=st.lists(ROWS, max_size=4))
def test_rows_are_read_back_as_they_were_written(rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    records.write(path, rows)
    assert records.read(path) == rows
    assert path.read_text(encoding="utf-8").splitlines()[0].split(",") == COLUMNS
    before = path.read_bytes()
    records.write(path, records.read(path))
    assert path.read_bytes() == before


def test_shares_are_floats_of_six_digits():
    for value, rounded in ((1 / 3, "0.333333"), (1, "1.0")):
        row = dataclasses.replace(ROW, **dict.fromkeys(records.SHARES, value))
        assert {repr(getattr(row, name)) for name in records.SHARES} == {rounded}


def test_no_layer_can_be_called_as_the_whole_network():
    with pytest.raises(KeyError):
        torch.nn.Module().add_module(records.ALL_LAYERS, torch.nn.ReLU())
    assert records.ALL_LAYERS[0] == "."


def test_a_row_knows_no_other_column_and_cannot_be_changed():
    with pytest.raises(TypeError, match="speed"):
        Row(**dataclasses.asdict(ROW), speed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROW.seed = 3


@pytest.mark.parametrize(
    ("old", "new", "odd"),
    [
        ("seed,", "seed,speed,", "speed"),
        ("seed,", "", "seed"),
        ("layer", "layers", "layer, layers"),
        ("seed,method", "method,seed", "another order"),
        ("seed,", "seed,seed,", "another order"),
    ],
)
def test_other_columns_are_named(table, old, new, odd):
    table.write_text(table.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert f"not the columns of this table ({odd})" in refusal(table)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2,global", "two,global"),
        ("2,global", "2.5,global"),
        ("2,global", ",global"),
        (",a.safetensors", ""),
        (",a.safetensors", ",a.safetensors,more"),
    ],
)
def test_a_bad_cell_and_one_too_few_or_too_many_are_named_with_their_line(table, old, new):
    content = table.read_text(encoding="utf-8")
    assert content.count(old) == 1
    table.write_text(content.replace(old, new), encoding="utf-8")
    assert "line 3 is not a row" in refusal(table)


def test_a_table_cut_short_anywhere_inside_a_line_is_refused(table):
    content = table.read_bytes()
    for kept in range(0, len(content), 7):
        if not content[:kept].endswith(b"\n"):
            table.write_bytes(content[:kept])
            assert "cut short" in refusal(table)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "not found"), (b"\n", "not the columns of this table"),
     (b"\xff\xfe\x00", "not a readable table"), (b"seed,m\xe9thode\n", "not a readable table")],
)  # fmt: skip
def test_what_is_no_table_is_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "rows.csv").write_bytes(content)
    assert words in refusal(tmp_path / "rows.csv")
    assert "not a readable table" in refusal(tmp_path)
