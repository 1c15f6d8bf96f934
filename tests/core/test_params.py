"""params.yaml: every mistake a person can make in it becomes lines that name the key.

The tests edit the repository's own params.yaml, so they hold whatever its defaults are.
"""

import contextlib
import copy
import math
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.lib.core import hardware, params
from stages.lib.core.errors import UserError

FILE = Path(__file__).parents[2] / "params.yaml"
TEXT = FILE.read_text(encoding="utf-8")
DEFAULTS = params.parse(TEXT)
BARE = [name for name, value in DEFAULTS.items() if isinstance(value, list)]
KEYS = [f"{name}.{key}" for name in params.SECTIONS if name not in BARE for key in DEFAULTS[name]]
MISSING = object()


def edited(**changes):
    """The defaults with changes, `section__key=value`; the value MISSING takes the key away."""
    values = copy.deepcopy(DEFAULTS)
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = values[sections[0]] if sections else values
        if value is MISSING:
            del place[key]
        else:
            place[key] = value
    return values


def complaints(values):
    """The lines of the UserError, by the key that each one names."""
    with pytest.raises(UserError) as error:
        params.validate(values)
    lines = str(error.value).splitlines()
    found = dict(line.split(": ", 1) for line in lines)
    assert len(found) == len(lines), "a key is complained about twice"
    return found


def retyped(section, key, typed):
    """The file's text with other text behind one key."""
    pattern = rf"(?ms)^({section}:.*?^  {key}:)[^#\n]*"
    text, count = re.subn(pattern, rf"\g<1> {typed} ", TEXT, count=1)
    assert count == 1
    return text


def rejected(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        params.read("model", path=path)
    message = str(error.value)
    assert all(line.startswith(f"{path}: ") for line in message.splitlines())
    return message


def test_the_default_file_is_valid():
    assert params.validate(DEFAULTS).model_dump() == DEFAULTS
    assert list(DEFAULTS) == list(params.SECTIONS)


def test_read_gives_the_sections_asked_for_and_they_cannot_be_changed():
    read = params.read("model", "seeds", path=FILE)
    assert set(vars(read)) == {"model", "seeds"}
    with pytest.raises(ValidationError):
        read.model.width = 1


@pytest.mark.parametrize("path", [*params.SECTIONS, *KEYS])
def test_a_missing_section_or_key_is_named_with_what_it_may_be(path):
    found = complaints(edited(**{path.replace(".", "__"): MISSING}))
    assert list(found) == [path]
    assert found[path].startswith("missing; allowed: ")


TEXTS = ("data.root", "model.weights", "model.weights_key", "teacher.weights")


@pytest.mark.parametrize("path", [path for path in BARE + KEYS if path not in TEXTS])
def test_a_value_that_no_key_takes_is_named_with_what_is_allowed(path):
    for value in ({}, None, math.nan, "no such thing"):
        found = complaints(edited(**{path.replace(".", "__"): value}))
        assert list(found) == [path]
        assert "allowed: " in found[path]


@pytest.mark.parametrize("name", [name for name in params.SECTIONS if name not in BARE])
def test_a_section_that_is_no_mapping_is_told_its_keys(name):
    first = next(key for key in KEYS if key.startswith(f"{name}.")).partition(".")[2]
    for value in (None, 3, "x", [], True):
        found = complaints(edited(**{name: value}))
        assert "is not a section; allowed: the keys " + first in found[name]


def test_an_unknown_key_is_told_the_nearest_known_one():
    found = complaints(edited(finetunes=1, model__widht=1))
    told = "unknown key; the nearest known one is "
    assert found == {"finetunes": f"{told}finetune", "model.widht": f"{told}width"}


@pytest.mark.parametrize("key", [1, None, True, "", "ü", "a\nb"])
def test_a_key_that_resembles_nothing_is_unknown_as_well(key):
    found = complaints(DEFAULTS | {key: 1})
    assert found[repr(key) if key == "a\nb" else str(key)].startswith("unknown key")


@pytest.mark.parametrize(
    ("change", "value", "path", "words"),
    [
        ("sparsities", [0.5, 1], "sparsities[1]", "1 is not allowed"),
        ("seeds", [2**32], "seeds[0]", "4294967295"),
        ("data__source", "minst", "data.source", "did you mean mnist?"),
        ("data__image_size", 7, "data.image_size", "auto, or a whole number from 8 to 1024"),
        ("finetune__learning_rate", 0, "finetune.learning_rate", "above 0"),
        ("iterative_prune__step", 0, "iterative_prune.step", "at least 0.001"),
        ("structured_prune__sparsities", [0, 0.5], "structured_prune.sparsities[0]", "above 0"),
        ("structured_prune__scopes", ["locale"], "structured_prune.scopes[0]", "layer, global"),
        ("dtype_bench__devices", ["auto"], "dtype_bench.devices[0]", "one of cpu, cuda"),
        ("latency_bench__batch_sizes", [64, 1], "latency_bench.batch_sizes", "[1, 64]"),
        ("export_onnx__weight_bits", 6, "export_onnx.weight_bits", "auto, or"),
        ("report__confidence", 0.9999999999999999, "report.confidence", "at most 0.9999"),
        ("compress__temperature", 1e-40, "compress.temperature", "at least 0.1"),
    ],
)
def test_a_bad_value_is_shown_at_its_key(change, value, path, words):
    found = complaints(edited(**{change: value}))
    assert list(found) == [path]
    assert words in found[path]


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"sparsities": [0.25, 0.8], "iterative_prune__target": 0.25, "iterative_prune__step": 0.5},
         "iterative_prune.target", "0.25 is below iterative_prune.step (0.5)"),
        ({"structured_prune__scopes": ["layer"], "export_onnx__structured_scopes": ["global"]},
         "export_onnx.structured_scopes", "not among structured_prune.scopes; allowed: layer"),
        ({"export_onnx__structured_sparsities": [0.7]},
         "export_onnx.structured_sparsities", "0.7 is not among structured_prune.sparsities"),
        ({"int_quantize__bits": [4, 8], "int_quantize__store_bits": [8, 16]},
         "int_quantize.store_bits", "16 is not among int_quantize.bits; allowed: 4, 8"),
        ({"controls__equal_budget": [0.6, 0.85]}, "controls.equal_budget",
         "0.85 is not among the sparsities that iterative pruning reaches; allowed: 0.2, 0.4"),
        ({"controls__equal_budget": [0.9], "iterative_prune__target": 0.8},
         "controls.equal_budget", "0.9 is not among"),
        ({"sparsities": [0.25, 0.5], "report__sparsity": 0.75},
         "report.sparsity", "0.75 is not among sparsities; allowed: 0.25, 0.5"),
        *(({"data__source": source, "training__mirror": True}, "training.mirror",
           f"true is not allowed with data.source {source}; allowed: false")
          for source in ("digits", "mnist", "svhn")),
        ({"train_baseline__epochs": 0}, "train_baseline.epochs", "leaves the network untrained"),
        ({"compute__ranks": 5, "training__batch_size": 9, "engine__name": "ray"},
         "compute.ranks", "a batch has 9 images (training.batch_size)"),
    ],
)  # fmt: skip
def test_keys_that_contradict_each_other_are_a_problem(changes, path, words):
    found = complaints(edited(**changes))
    assert list(found) == [path]
    assert words in found[path]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("compute.device", "cuda", "allowed: auto or cpu"),
        ("compute.threads", 3, "2 cores; allowed: at most 2"),
        ("latency_bench.threads", 3, "2 cores; allowed: at most 2"),
    ],
)
def test_more_than_the_machine_has_is_a_problem(monkeypatch, path, value, words):
    values = edited(**{path.replace(".", "__"): value})
    for gpus, cores in (((), 2), (("Some GPU",), 3)):
        monkeypatch.setattr(hardware, "cuda_devices", lambda gpus=gpus: gpus)
        monkeypatch.setattr(hardware, "cores", lambda cores=cores: cores)
        if gpus:
            assert params.validate(values)
        else:
            assert words in complaints(values)[path]


@pytest.mark.parametrize(
    ("device", "threads", "most", "words"),
    [
        ("auto", 4, 2, "3, but there are 2 GPUs here; allowed: at most 2"),
        ("cuda", 1, 2, "3, but there are 2 GPUs here; allowed: at most 2"),
        ("cpu", 1, 4, "5, but there are 4 cores here; allowed: at most 4"),
        ("cpu", 3, 1, "2, but there are 4 cores here for 3 threads each; allowed: at most 1"),
    ],
)
def test_a_rank_has_a_gpu_or_cores_of_its_own(monkeypatch, device, threads, most, words):
    monkeypatch.setattr(hardware, "cuda_devices", lambda: ("Some GPU",) * 2)
    monkeypatch.setattr(hardware, "cores", lambda: 4)
    values = {"compute__device": device, "compute__threads": threads}
    assert params.validate(edited(compute__ranks=most, **values))
    assert words in complaints(edited(compute__ranks=most + 1, **values))["compute.ranks"]
    # A cluster's machines are not this one.
    assert params.validate(edited(compute__ranks=most + 1, engine__name="ray", **values))


@pytest.mark.parametrize(
    "changes",
    [
        *({"data__source": source, "training__mirror": True}
          for source in ("fashion_mnist", "cifar10", "cifar100", "image_folder")),
        *({"data__image_size": size} for size in ("auto", 8, 224, 1024)),
        {"iterative_prune__target": 0.5, "iterative_prune__step": 0.5},
        {"train_baseline__epochs": 0, "model__weights": "mine.pt"},
    ],
)  # fmt: skip
def test_what_is_allowed_is_read_as_it_was_written(changes):
    values = edited(**changes)
    if "iterative_prune__target" in changes:
        values["controls"]["equal_budget"] = "all"
    assert params.validate(values).model_dump() == values


def test_all_problems_of_all_sections_are_reported_at_once():
    wrong = {
        "seeds": [], "compute__device": "tpu", "model__width": MISSING, "finetune": MISSING,
        "train_baseline__epochs": -1, "int_quantize__bits": [8, 8], "reprot": {},
    }  # fmt: skip
    assert set(complaints(edited(**wrong))) == {name.replace("__", ".") for name in wrong}
    found = complaints(edited(sparsities=[0.5], report__sparsity=0.75, training__mirror=True))
    assert set(found) == {"report.sparsity", "training.mirror"}


@pytest.mark.parametrize(
    ("section", "key", "typed", "words"),
    [
        ("finetune", "learning_rate", "1e-3", "write 0.001 without quotes"),
        ("finetune", "learning_rate", "-.inf", "-inf is not allowed"),
        ("finetune", "learning_rate", "", "nothing is not allowed"),
        ("finetune", "epochs", "5.0", "5.0 is not allowed"),
        ("finetune", "epochs", "yes", "YAML reads on, off, yes and no as booleans"),
        ("compute", "device", "2026-01-01", "datetime.date"),
        ("training", "mirror", "'on'", "allowed: true or false"),
    ],
)
def test_what_yaml_makes_of_the_typed_text_is_explained(tmp_path, section, key, typed, words):
    message = rejected(tmp_path, retyped(section, key, typed))
    assert f"{section}.{key}: " in message
    assert words in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model:\n  width: 8\n  name: x\n  width: 9\n", "line 4: the key width is there twice"),
        ("seeds: [0, 1\n", "line 2, column 1: this is not YAML"),
        ("seeds: [0]\nmodel: 1\nseeds: [1]\n", "line 3: the key seeds is there twice"),
        ("a: 1\nb: &x\n c: *y\n", "line 3, column 5: this is not YAML"),
        ("a: 1\nb: !!python/object:os.system {}\n", "line 2, column 4: this is not YAML"),
        ("a: 2026-13-45", "this is not YAML"),
        ("a: !!bool x", "this is not YAML"),
        ("a: " + "9" * 5000, "this is not YAML"),
        ('"\\ud800": 1', "this is not YAML"),
        ("[" * 1000, "this is not YAML: maximum recursion depth"),
        ("", "the file holds nothing; allowed: seeds, "),
        ("- 1\n- 2\n", "the file holds [1, 2]; allowed: seeds, "),
        (b"caf\xe9: 1\n", "not UTF-8 text"),
        ("seeds: [0]\n".encode("utf-16"), "not UTF-8 text"),
    ],
)
def test_what_is_no_params_file_is_said_to_be_so(tmp_path, content, words):
    assert words in rejected(tmp_path, content)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm_and_a_missing_file_is_told(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"params\.yaml: not found; run from the repository's root"):
        params.read("model", path=path)
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert params.read("seeds", path=path).seeds == DEFAULTS["seeds"]


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
ATOMS |= st.binary() | st.sampled_from(["auto", "cuda", "digits", "1e-3", 0, 1, 0.5])
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@settings(deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from([path.split(".") for path in BARE + KEYS]).map(tuple)
        | st.tuples(st.text(max_size=8))
        | st.tuples(st.sampled_from(list(params.SECTIONS))),
        VALUES,
        min_size=1,
        max_size=4,
    )
)
def test_arbitrary_values_raise_a_user_error_or_nothing(changes):
    values = copy.deepcopy(DEFAULTS)
    for path, value in changes.items():
        place = values if len(path) == 1 else values[path[0]]
        if isinstance(place, dict):
            place[path[-1]] = value
    with contextlib.suppress(UserError):
        params.validate(values)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(alphabet="ab01.eE-+_:,[]{}&*!|>'\"#?%@ \n\t\\\x00\x85é", max_size=40))
@example("<<: 1")
@example("=: 1")
@example("&a [*a]")
@example("&a {b: *a}")
def test_arbitrary_text_parses_or_is_a_user_error(text):
    with contextlib.suppress(UserError):
        params.parse(text)
