"""The page for browsers, read without one: its structure, what it may load, names, size."""

import base64
import hashlib
import json
import re
from functools import cache
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown_runs import HOSTILE, RUNS, drawn, page

from stages.lib.report import html

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Every element with its attributes, and the text of every element by its tag."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        self.texts.setdefault(where, []).append(data)

    @property
    def data(self):
        return next(text for text in self.texts["script"] if text.startswith("{"))

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


@cache
def read(name):
    return Reader(page(name))


pages = pytest.mark.parametrize("name", RUNS)


@pages
def test_the_page_is_small_and_whole_and_every_id_is_there_once(name):
    reader = read(name)
    assert not reader.open
    assert len(page(name).encode()) < 1_500_000
    ids = reader.attributes("id")
    assert len(ids) == len(set(ids))
    pointed_at = [link[1:] for link in reader.attributes("href") if link.startswith("#")]
    for label in ("aria-labelledby", "aria-describedby"):
        pointed_at += " ".join(reader.attributes(label)).split()
    assert set(pointed_at) <= set(ids)


@pages
def test_the_page_can_load_nothing_and_runs_its_own_scripts_alone(name):
    reader = read(name)
    assert all(source.startswith("data:image/") for source in reader.attributes("src"))
    # What a link leads to is opened by a click alone.
    links = [link for link in reader.attributes("href") if not link.startswith(("#", "data:"))]
    assert set(links) <= {"../artifacts/deploy/smallest.packed", "../artifacts/deploy/fastest.onnx"}
    style = "".join(reader.texts["style"])
    assert not re.search(r"url\(|@import", style)
    (policy,) = [text for text in reader.attributes("content") if "default-src" in text]
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    scripts = re.findall(r"<script>(.*?)</script>", page(name), re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    # Addresses stand in the bundle alone, as names of formats and in messages, and in a name.
    text = page(name).replace(html.bundle(), "").replace("https://example.com", "")
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)


@pages
def test_every_chart_has_its_place_its_words_and_its_table(name):
    reader, figures = read(name), drawn(name)[1].values()
    places = [attrs["id"] for _, attrs in reader.elements if attrs.get("role") == "img"]
    assert sorted(json.loads(reader.data)["charts"]) == sorted(places)
    assert len(places) == sum(len(figure.panels) for figure in figures)
    for figure in figures:
        assert figure.tables
        assert re.search(r"\d", figure.seen) or "not" in figure.seen.lower(), figure.seen
        assert all(table.rows for _, table in figure.tables)


def test_names_from_a_users_data_stay_names():
    reader = read("much")
    tags = [tag for tag, _ in reader.elements]
    assert "iframe" not in tags
    assert tags.count("img") == len(reader.attributes("src"))
    assert tags.count("script") == 3
    assert not [attrs for _, attrs in reader.elements if any(key[:2] == "on" for key in attrs)]
    cells = "".join(reader.texts["td"])
    layers = str(json.loads(reader.data))
    for name in HOSTILE:
        assert name in cells
        assert repr(name)[1:-1] in layers


@given(st.text())
def test_code_in_a_text_is_escaped_as_all_else(text):
    marked = str(html.with_code(text))
    assert not {"<", ">"} & set(marked.replace("<code>", "").replace("</code>", ""))


def test_the_numbers_behind_a_finding_have_names_for_people():
    compared = {"outcome": "better", "one": "global", "other": "uniform", "one_accuracy": -0.9}
    left_out = {"one": "random_global", "left_out": "no accuracy"}
    found = html.evidence([compared, left_out])
    assert found.headers == [
        "outcome", "network", "other network", "why left out", "its accuracy",
    ]  # fmt: skip
    assert found.rows == [
        ("better", "global", "layer-wise (uniform)", "", "−0.9"),
        ("left out", "random, global", "", "no accuracy", ""),
    ]


def test_a_number_and_its_exponent_stay_on_a_line():
    assert html.together("an error of 1.02e-5") == "an error of 1.02e\u2060-\u20605"
