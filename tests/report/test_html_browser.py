"""The page in a headless Chromium: nothing goes wrong, nothing is loaded, every chart is drawn."""

import base64
import json
import re
import shutil

import pytest
from shown_runs import RUNS, page

from tests.conftest import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MARKS = ".mark-symbol path, .mark-rect path, .mark-line path, .mark-rule line, .role-mark text"
POINTS = ".mark-symbol.role-mark path"
CELLS = ".mark-rect.role-mark path"


@pytest.fixture(scope="module")
def browser():
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its chromedriver on this machine (Debian: chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Root has no sandbox, containers little /dev/shm; the page is ours.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The pages, by the name of their run."""
    directory = tmp_path_factory.mktemp("pages")
    pages = {name: directory / f"{name}.html" for name in RUNS}
    for name, path in pages.items():
        path.write_text(page(name), encoding="utf-8")
    return pages | {"the default's": ROOT / "reports/index.html"}


def emulate(browser, width, **media):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []} | media)
    # The page hears of it before it draws the next frame.
    frame = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
    browser.execute_async_script(frame)


def show(browser, path, width=1440, scheme="light"):
    """Opens a page and waits until all is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    emulate(browser, width, features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(
        lambda one: one.execute_script("return document.documentElement.dataset.drawn") == "yes"
    )
    browser.execute_script("document.querySelectorAll('.fold').forEach(one => one.open = true)")


def parts(browser, chart, selector):
    """These parts of a chart, which is scrolled to the middle of the screen."""
    place = browser.find_element("id", chart)
    script = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
    browser.execute_script(script, place)
    return place.find_elements("css selector", selector)


def point_at(browser, element):
    from selenium.webdriver.common.action_chains import ActionChains

    return ActionChains(browser).move_to_element(element)


def requests(browser):
    """The addresses that were asked for since the page was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in asked]


pages = pytest.mark.parametrize("name", RUNS)


@pages
def test_every_chart_is_drawn_without_an_error_or_a_request(browser, files, name):
    show(browser, files[name])
    assert browser.get_log("browser") == []
    asked = [url for url in requests(browser) if not url.startswith("data:")]
    assert asked == [files[name].as_uri()]
    # No name from a user's data became an element: each picture is a thumbnail.
    made = "return [document.scripts.length, document.querySelectorAll('img:not(li > *)').length]"
    assert browser.execute_script(made) == [3, 0]
    empty = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].map(one => one.id).filter("
        f"id => !document.querySelector('#' + id).querySelector({MARKS!r}))"
    )
    assert empty == []


@pages
@pytest.mark.parametrize("width", [320, 390, 800, 1440])
def test_nothing_is_wider_than_the_screen(browser, files, name, width):
    show(browser, files[name], width)
    wide = browser.execute_script(
        "document.querySelectorAll('details').forEach(one => one.open = true);"
        "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    )
    assert wide <= 0


def test_hovering_tells_the_numbers_and_a_click_on_the_legend_makes_the_others_pale(browser, files):
    show(browser, files["everything"])
    marks = dict.fromkeys(("pareto", "classes", "accuracy", "error"), POINTS)
    for chart, selector in (marks | dict.fromkeys(("ladder", "sensitivity"), CELLS)).items():
        point_at(browser, parts(browser, f"chart-{chart}-0", selector)[-1]).perform()
        tooltip = browser.find_element("id", "vg-tooltip-element")
        assert "visible" in tooltip.get_attribute("class")
        assert any(letter.isdigit() for letter in tooltip.text), chart

    def opacities():
        return {
            mark.get_attribute("opacity") for mark in parts(browser, "chart-accuracy-1", POINTS)
        }

    before = opacities()
    labels = parts(browser, "chart-accuracy-1", ".role-legend-label text")
    point_at(browser, labels[1]).click().perform()
    assert opacities() - before


def channels(colour):
    """The numbers of `rgb(…)`."""
    return [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def luminance(colour, opacity=1.0, paper=None):
    """The relative luminance (WCAG 2) of a colour, on a paper of another."""
    behind = channels(paper or colour)
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4
        for one in (
            (opacity * mine + (1 - opacity) * its) / 255
            for mine, its in zip(channels(colour), behind, strict=True)
        )
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


# What a chart draws with what colour and opacity, and on which part. A point may be hollow; bands,
# and cells of a map, which are a scale of colours, are no marks.
DRAWN = """
const found = {};
for (const one of document.querySelectorAll(
    '.chart svg .role-mark path, .chart svg .role-mark line, .chart svg .role-legend-symbol path,' +
    '.chart:not(#chart-sensitivity-0) svg .role-mark text, .chart svg text')) {
  const style = getComputedStyle(one);
  const opacity = (name) => parseFloat(one.getAttribute(name) ?? 1);
  const chart = one.closest('.chart').id;
  const band = opacity('opacity') < 0.1;
  const cell = chart === 'chart-sensitivity-0' && one.closest('.role-mark');
  const hidden = style.display === 'none' || opacity('opacity') === 0;
  if (band || cell || hidden) continue;
  const solid = (colour) => colour !== 'none' && !/, 0\\)$/.test(colour);
  const filled = solid(style.fill) && one.getAttribute('fill') !== 'none';
  const colour = filled ? style.fill : style.stroke;
  const line = [one.tagName, colour, opacity('opacity')];
  if (solid(colour)) found[line] = [...line, chart];
}
return Object.values(found);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out(browser, files, scheme):
    """WCAG's contrast, on paper of the page's colour: 4.5 for text, 3 for marks."""
    show(browser, files["everything"], scheme=scheme)
    colours = browser.execute_script(
        "const of = (selector, what) => getComputedStyle(document.querySelector(selector))[what];"
        "return [of('body', 'backgroundColor'),"
        " ...['body', '.quiet', '.saving', '.numbers summary', '.copy', '.lost .kind', '.card dt']"
        ".map(one => of(one, 'color'))]"
    )
    paper, *inks = map(luminance, colours)
    assert (paper > 0.5) == (scheme == "light")
    assert all(contrast(ink, paper) >= 4.5 for ink in inks), colours
    drawn = browser.execute_script(DRAWN)
    assert {tag for tag, *_ in drawn} >= {"path", "line", "text"}
    for tag, colour, opacity, chart in drawn:
        seen = luminance(colour, opacity, colours[0])
        assert contrast(seen, paper) >= (4.5 if tag == "text" else 3), (chart, tag, colour)


def test_numbers_on_a_map_stand_out_from_their_cells(browser, files):
    show(browser, files["everything"])
    cells = browser.execute_script(
        "const marks = (name) => [...document.querySelectorAll("
        "  `#chart-sensitivity-0 .role-mark.mark-${name} > *`)];"
        "return marks('rect').map((cell, index) => ["
        "  getComputedStyle(cell).fill, getComputedStyle(marks('text')[index]).fill])"
    )
    assert len(cells) > 4
    assert all(contrast(*map(luminance, pair)) >= 4.5 for pair in cells), cells


# Texts of one chart that lie over each other or touch.
OVERLAPS = """
const found = [];
for (const chart of document.querySelectorAll('.chart')) {
  const boxes = [...chart.querySelectorAll('svg text')]
    .filter(one => one.textContent.trim() && getComputedStyle(one).display !== 'none'
      && parseFloat(one.getAttribute('opacity') ?? 1) > 0)
    .map(one => [one.textContent, one.getBoundingClientRect()]);
  boxes.forEach(([text, one], index) => {
    for (const [other, its] of boxes.slice(index + 1)) {
      const across = Math.min(one.right, its.right) - Math.max(one.left, its.left);
      const down = Math.min(one.bottom, its.bottom) - Math.max(one.top, its.top);
      if (across > -3 && down > 2) found.push([chart.id, text, other]);
    }
  });
}
return found;
"""


@pytest.mark.parametrize("name", ["everything", "little", "the default's"])
@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_no_text_of_a_chart_lies_over_another(browser, files, name, width):
    show(browser, files[name], width)
    assert browser.execute_script(OVERLAPS) == []
    many = (
        "return [...document.querySelectorAll('.chart')].map("
        "one => one.querySelectorAll('.role-legend-label text').length)"
    )
    assert max(browser.execute_script(many)) <= 8
    # A layer's name may be shortened, a network's is broken into lines.
    cut = (
        "return [...document.querySelectorAll('.chart:not(#chart-sensitivity-0) svg text')]"
        ".map(one => one.textContent).filter(text => text.includes('…'))"
    )
    assert browser.execute_script(cut) == []


# How many pixels of the chart's lines lie within each label of a point.
STRUCK = """
const chart = document.getElementById('chart-pareto-0');
const lines = [...chart.querySelectorAll('.mark-rule.role-mark line, .mark-line.role-mark path')];
const shown = [...chart.querySelectorAll('.mark-text.role-mark text')].filter(
  (one) => one.textContent && getComputedStyle(one).display !== 'none');
const found = Object.fromEntries(shown.map((one) => [one.textContent, 0]));
for (const line of lines) {
  const matrix = line.getScreenCTM();
  for (let at = 0; at < line.getTotalLength(); at++) {
    const {x, y} = line.getPointAtLength(at).matrixTransform(matrix);
    for (const one of shown) {
      const box = one.getBoundingClientRect();
      const within = x > box.left && x < box.right && y > box.top && y < box.bottom;
      found[one.textContent] += within;
    }
  }
}
return found;
"""


@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_no_line_strikes_a_label_through(browser, files, width):
    show(browser, files["everything"], width)
    struck = browser.execute_script(STRUCK)
    assert len(struck) > 1
    assert set(struck.values()) == {0}, struck


def test_on_a_phone_what_follows_the_files_opens_at_a_touch_and_for_a_link(browser, files):
    show(browser, files["everything"], 390)
    every = "return [...document.querySelectorAll('.fold')].map(one => one.open)"
    height = "return document.documentElement.scrollHeight"
    whole = browser.execute_script(height)
    emulate(browser, 1024)
    emulate(browser, 390)
    assert not any(browser.execute_script(every))
    assert browser.execute_script(height) < min(5000, whole / 3)
    browser.execute_script("location.hash = 'section-speed'")
    browser.execute_script("document.querySelector('#section-size summary').click()")
    assert sum(browser.execute_script(every)) == 2
    emulate(browser, 1024)
    assert all(browser.execute_script(every))


def test_a_click_on_a_header_sorts_and_a_table_is_copied_as_markdown(browser, files):
    show(browser, files["everything"])
    found = browser.execute_script(
        "const table = [...document.querySelectorAll('table.sortable')].find("
        "  one => one.caption.textContent.startsWith('Every network, file'));"
        "table.closest('details').open = true;"
        "let copied; Object.defineProperty(navigator, 'clipboard',"
        "  {value: {writeText: async (text) => { copied = text; }}});"
        "const column = (index) => [...table.tBodies[0].rows].map(r => r.cells[index].textContent);"
        "const click = (index) => table.tHead.rows[0].cells[index].querySelector('button').click();"
        "const orders = [3, 3, 0].map((index) => (click(index), column(index)));"
        "table.parentElement.previousElementSibling.click();"
        "return [orders, table.tHead.rows[0].cells[0].ariaSort, copied]"
    )
    (rising, falling, names), sorted_by, copied = found
    units = {"B": 1, "KiB": 1024}

    def size(text):
        number, unit = text.split()
        return float(number) * units[unit]

    assert rising == sorted(rising, key=size)
    assert falling == sorted(falling, key=size, reverse=True)
    assert len(set(rising)) > 3
    assert names[0].casefold() <= names[-1].casefold()
    assert sorted_by == "ascending"
    lines = copied.splitlines()
    assert lines[0].startswith("| network | saves |")
    assert lines[1].startswith("| :-- | --: |")
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == names


def test_on_paper_charts_say_how_to_read_them_and_none_is_cut(browser, files):
    show(browser, files["everything"])
    closed = "return document.querySelectorAll('.reading:not([open])').length"
    assert browser.execute_script(f"dispatchEvent(new Event('beforeprint')); {closed}") == 0
    assert browser.execute_script(f"dispatchEvent(new Event('afterprint')); {closed}")
    emulate(browser, 700, media="print")
    cut = browser.execute_script(
        "const right = document.documentElement.clientWidth + 1;"
        "return [...document.querySelectorAll('.chart svg')].filter("
        "one => one.getBoundingClientRect().right > right).length"
    )
    assert cut == 0


def test_a_printed_page_has_less_than_a_dozen_sheets(browser, files):
    show(browser, files["everything"])
    sheet = {"preferCSSPageSize": True, "paperWidth": 8.27, "paperHeight": 11.69}
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", sheet)["data"])
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", pdf)) < 12
    emulate(browser, 700, media="print")
    kept = browser.execute_script(
        "const every = (selector, what, value) => [...document.querySelectorAll(selector)].every("
        "  one => getComputedStyle(one)[what] === value);"
        "return [every('figure', 'breakInside', 'avoid'),"
        "        every('h2, h3, h4', 'breakAfter', 'avoid')]"
    )
    assert kept == [True, True]
