"""The page in a headless Chromium: nothing goes wrong, nothing is loaded, every chart is drawn."""

import json
import shutil

import pytest
from shown_runs import RUNS, page

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
    return pages


def emulate(browser, width, **media):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []} | media)


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_the_page_and_of_charts_stands_out(browser, files, scheme):
    """WCAG's contrast of 4.5 for text, on paper of the page's colour."""
    show(browser, files["everything"], scheme=scheme)
    colours = browser.execute_script(
        "const of = (selector, what) => getComputedStyle(document.querySelector(selector))[what];"
        "return [of('body', 'backgroundColor'), of('.chart svg text', 'fill'),"
        " ...['body', '.quiet', '.saving', '.numbers summary'].map(one => of(one, 'color'))]"
    )

    def luminance(colour):
        numbers = [float(part) / 255 for part in colour[4:-1].split(",")]
        red, green, blue = (
            one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in numbers
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    paper, *inks = map(luminance, colours)
    assert (paper > 0.5) == (scheme == "light")
    for ink in inks:
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, colours


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
