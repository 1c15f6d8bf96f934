"""A table of labels says the same however it is written."""

import csv
import io

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.lib.core.paths import PARTS
from stages.lib.data import label_table, layout

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\.~"),
    min_size=1, max_size=12,
).filter(lambda name: name[0] != "$" and name == name.casefold())  # fmt: skip
LABELS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9
)
WORDS = {
    "train": ["train", "Training", "TRAIN"], "validation": ["val", "valid", "Validation", "dev"],
    "test": ["test", "TESTING"],
}  # fmt: skip


@settings(
    deadline=None, derandomize=True, max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.data())
def test_files_labels_and_parts_are_those_of_the_lines(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("table")
    files = data.draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    entries, lines = [], []
    for name in files:
        folder = data.draw(st.sampled_from(["", "a/", "a/b/"]))
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / f"{folder}{name}.png").touch()
        label, part = data.draw(LABELS), data.draw(st.sampled_from(PARTS))
        entries.append(label_table.Entry(f"{folder}{name}.png", label, part))
        # The whole path, the name, or the name without its ending, as each file has another name.
        written = data.draw(st.sampled_from([f"{folder}{name}.png", f"{name}.png", name]))
        lines.append({"Image": written, "x": "1", "Class": label})
        lines[-1]["split"] = data.draw(st.sampled_from(WORDS[part]))
    columns = data.draw(st.permutations(["Image", "x", "Class", "split"]))
    text = io.StringIO()
    delimiter = data.draw(st.sampled_from(",;\t"))
    writer = csv.DictWriter(text, columns, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(data.draw(st.permutations(lines)))
    (root / "labels.csv").write_text(text.getvalue(), encoding="utf-8")
    assert label_table.read(root, ["labels.csv"]) == sorted(entries)


@given(st.sampled_from([(part, word) for part in PARTS for word in WORDS[part]]), st.data())
def test_words_around_the_name_of_a_part_are_told_apart_from_it(case, data):
    part, word = case
    idle = data.draw(st.sampled_from(["", "_set", "-images", " data"]))
    assert layout.part_of(word + idle) == (part, ())
    assert layout.looks_like_a_part(word + idle)
    other = data.draw(st.text("bcdghjkqxz", min_size=3, max_size=8))
    assert layout.part_of(f"{other}_{word}") == (part, (other,))
    assert not layout.looks_like_a_part(f"{other}_{word}")
    assert layout.part_of(other) == (None, (other,))
