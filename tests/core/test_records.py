"""The one row shape, to disk and back."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core import records
from stages.lib.core.errors import UserError
from stages.lib.core.records import Row

ROW = Row(
    seed=1,
    method="global",
    layer="all",
    weight_bits=32,
    target_sparsity=0.5,
    sparsity=0.500012,
    parameters=1000,
    nonzero_parameters=512,
    macs=4_000_000,
    extra_epochs=0,
    validation_accuracy=0.9,
    test_accuracy=0.87,
    bytes_on_disk=4321,
)

SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 2**62)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"]))
ROWS = st.builds(
    Row,
    seed=st.integers(0, 2**32 - 1),
    method=NAMES,
    layer=NAMES,
    weight_bits=st.integers(2, 32),
    target_sparsity=SHARES,
    sparsity=SHARES,
    parameters=COUNTS,
    nonzero_parameters=COUNTS,
    macs=COUNTS,
    extra_epochs=COUNTS,
    validation_accuracy=SHARES,
    test_accuracy=SHARES,
    bytes_on_disk=COUNTS,
    test_top5=st.none() | SHARES,
    model=NAMES,
)


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


def test_a_table_has_every_field_of_a_row_as_its_column(table):
    header = table.read_text(encoding="utf-8").splitlines()[0]
    assert header.split(",") == [field.name for field in dataclasses.fields(Row)]


def test_writing_twice_gives_the_same_bytes(table, tmp_path):
    again = tmp_path / "again.csv"
    records.write(again, records.read(table))
    assert again.read_bytes() == table.read_bytes()


@pytest.mark.parametrize(
    "name", ["target_sparsity", "sparsity", "validation_accuracy", "test_accuracy"]
)
def test_shares_are_rounded_to_six_digits(name):
    assert getattr(dataclasses.replace(ROW, **{name: 1 / 3}), name) == 0.333333


def test_a_share_given_as_a_whole_number_is_a_float_on_disk(table):
    records.write(table, [dataclasses.replace(ROW, sparsity=1)])
    assert ",1.0," in table.read_text(encoding="utf-8")


def test_a_row_knows_no_other_column_and_cannot_be_changed():
    with pytest.raises(TypeError, match="speed"):
        Row(**dataclasses.asdict(ROW), speed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROW.seed = 3


def test_a_missing_table_says_what_to_run(tmp_path):
    assert "not found" in refusal(tmp_path / "rows.csv")


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


def test_a_line_without_columns_is_no_table(table):
    table.write_text("\n", encoding="utf-8")
    assert "not the columns of this table" in refusal(table)


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
    for kept in range(len(content)):
        if not content[:kept].endswith(b"\n"):
            table.write_bytes(content[:kept])
            assert "cut short" in refusal(table)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"seed,m\xe9thode\n"])
def test_a_table_that_is_not_utf8_is_no_table(table, content):
    table.write_bytes(content)
    assert "not a readable table" in refusal(table)


def test_a_folder_is_no_table(tmp_path):
    assert "not a readable table" in refusal(tmp_path)
