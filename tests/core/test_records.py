"""The one row shape, to disk and back, and the choice that is made on it."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core import records
from stages.lib.core.errors import UserError
from stages.lib.core.records import Row
from stages.lib.pruning import tradeoff
from stages.lib.quantization import linear
from stages.lib.training import loop

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


def test_a_row_knows_no_other_column():
    with pytest.raises(TypeError, match="speed"):
        Row(**dataclasses.asdict(ROW), speed=1)


def test_a_row_cannot_be_changed():
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
    [("2,global", "two,global"), ("2,global", "2.5,global"), ("2,global", ",global")],
)
def test_a_bad_cell_is_named_with_its_line(table, old, new):
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


@pytest.mark.parametrize("end", ["", ",a.safetensors,more"])
def test_a_row_with_a_cell_too_few_or_too_many_is_named_with_its_line(table, end):
    content = table.read_text(encoding="utf-8")
    table.write_text(content.replace(",a.safetensors", end), encoding="utf-8")
    assert "line 3 is not a row" in refusal(table)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"seed,m\xe9thode\n"])
def test_a_table_that_is_not_utf8_is_no_table(table, content):
    table.write_bytes(content)
    assert "not a readable table" in refusal(table)


def test_a_folder_is_no_table(tmp_path):
    assert "not a readable table" in refusal(tmp_path)


def alone(layer, sparsity, accuracy, seed=0):
    return dataclasses.replace(
        ROW,
        seed=seed,
        method="layer_alone",
        layer=layer,
        target_sparsity=sparsity,
        validation_accuracy=accuracy,
    )


def test_the_sparsest_that_keeps_the_accuracy_is_best():
    rows = [alone("a", 0.25, 0.95), alone("a", 0.5, 0.91), alone("a", 0.75, 0.4)]
    assert tradeoff.best_per_layer(rows, 0.9) == [(0, "a", 0.5, 0.91)]


def test_exactly_the_least_accuracy_is_enough():
    assert tradeoff.best_per_layer([alone("a", 0.5, 0.9)], 0.9) == [(0, "a", 0.5, 0.9)]


def test_a_dip_on_the_way_does_not_stop_the_search():
    rows = [alone("a", 0.25, 0.95), alone("a", 0.5, 0.2), alone("a", 0.75, 0.93)]
    assert tradeoff.best_per_layer(rows, 0.9) == [(0, "a", 0.75, 0.93)]


def test_the_order_of_a_layers_rows_does_not_matter():
    rows = [alone("a", 0.75, 0.4), alone("a", 0.5, 0.91), alone("a", 0.25, 0.95)]
    assert tradeoff.best_per_layer(rows, 0.9) == [(0, "a", 0.5, 0.91)]


def test_a_layer_that_keeps_it_nowhere_is_not_to_be_pruned():
    assert tradeoff.best_per_layer([alone("a", 0.25, 0.3)], 0.9) == [(0, "a", 0.0, None)]


def test_layers_come_in_the_order_of_their_first_row():
    rows = [alone("z", 0.5, 0.9), alone("a", 0.5, 0.9), alone("z", 0.75, 0.9)]
    assert [best.layer for best in tradeoff.best_per_layer(rows, 0.5)] == ["z", "a"]


def test_the_seed_is_that_of_the_rows():
    (best,) = tradeoff.best_per_layer([alone("a", 0.5, 0.9, seed=7)], 0.5)
    assert best.seed == 7


def test_the_choice_is_made_on_validation_and_never_on_test():
    row = alone("a", 0.5, 0.95)
    bad_test, good_test = (dataclasses.replace(row, test_accuracy=share) for share in (0, 1))
    assert tradeoff.best_per_layer([bad_test], 0.9) == tradeoff.best_per_layer([good_test], 0.9)


def test_no_rows_give_no_layers():
    assert tradeoff.best_per_layer([], 0.9) == []


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9)), st.integers(0, 10), max_size=20
    ),
    st.integers(0, 10),
)
def test_no_sparser_measurement_of_a_layer_keeps_the_accuracy(measured, least):
    rows = [alone(layer, tenth / 10, share / 10) for (layer, tenth), share in measured.items()]
    for best in tradeoff.best_per_layer(rows, least / 10):
        for row in rows:
            if row.layer == best.layer and row.target_sparsity > best.sparsity:
                assert row.validation_accuracy < least / 10


def test_tables_have_the_columns_of_what_is_written_to_them():
    assert [field.name for field in dataclasses.fields(loop.Epoch)] == list(records.EPOCH)
    assert tradeoff.BestSparsity._fields == records.BEST_SPARSITY
    assert set(linear.LayerError._fields) < set(records.QUANTIZED_LAYER)
