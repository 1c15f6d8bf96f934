"""The page in a headless Chromium: nothing goes wrong, nothing is loaded, every chart is drawn."""

import json
import shutil

import pytest
from shown_runs import FINDINGS, RUNS, drawn

from stages.lib.report import html

pytestmark = pytest.mark.xdist_group("browser")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MARKS = ", ".join(
    (
        ".mark-symbol path",
        ".mark-rect path",
        ".mark-line path",
        ".mark-rule line",
        ".role-mark text",
    )
)


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
    found = {}
    for name in RUNS:
        path = directory / f"{name.replace(' ', '-')}.html"
        run, figures = drawn(name)
        path.write_text(html.render(run, FINDINGS, figures), encoding="utf-8")
        found[name] = path
    return found


def show(browser, path, width=1440, scheme="light"):
    """Opens a page and waits until all is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(
        lambda one: one.execute_script("return document.documentElement.dataset.drawn") == "yes"
    )


def centred(browser, name):
    """The element of an id, scrolled to the middle of the screen."""
    place = browser.find_element("id", name)
    script = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
    browser.execute_script(script, place)
    return place


def requests(browser):
    """The addresses that were asked for since the page was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


pages = pytest.mark.parametrize("name", RUNS)


@pages
def test_every_chart_is_drawn_without_an_error_or_a_request(browser, files, name):
    show(browser, files[name])
    assert browser.get_log("browser") == []
    asked = [url for url in requests(browser) if not url.startswith("data:")]
    assert asked == [files[name].as_uri()]
    # No name from a user's data became an element.
    made = "return [document.scripts.length, document.querySelectorAll('img').length]"
    assert browser.execute_script(made) == [3, 0]
    counts = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.chart')].map("
        f"one => [one.id, one.querySelectorAll({MARKS!r}).length]))"
    )
    assert counts
    assert all(counts.values()), counts


@pages
@pytest.mark.parametrize("width", [320, 390, 800, 1440])
def test_nothing_is_wider_than_the_screen(browser, files, name, width):
    show(browser, files[name], width)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = browser.execute_script(
        "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    )
    assert wide <= 0


@pytest.mark.parametrize("chart", ["accuracy", "size", "latency", "ladder", "sensitivity", "error"])
def test_hovering_tells_the_numbers(browser, files, chart):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    show(browser, files["everything"])
    place = centred(browser, f"chart-{chart}-0")
    shape = (
        ".mark-rect.role-mark path"
        if chart in ("ladder", "sensitivity")
        else ".mark-symbol.role-mark path"
    )
    marks = place.find_elements(By.CSS_SELECTOR, shape)
    ActionChains(browser).move_to_element(marks[-1]).perform()
    tooltip = browser.find_element(By.ID, "vg-tooltip-element")
    assert "visible" in tooltip.get_attribute("class")
    assert any(letter.isdigit() for letter in tooltip.text)


def test_a_click_on_the_legend_makes_the_others_pale(browser, files):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    show(browser, files["everything"])
    place = centred(browser, "chart-close_up-0")

    def opacities():
        marks = place.find_elements(By.CSS_SELECTOR, ".mark-symbol.role-mark path")
        return {mark.get_attribute("opacity") for mark in marks}

    before = opacities()
    labels = place.find_elements(By.CSS_SELECTOR, ".role-legend-label text")
    ActionChains(browser).move_to_element(labels[1]).click().perform()
    assert opacities() - before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_the_page_and_of_charts_stands_out(browser, files, scheme):
    """WCAG's contrast of 4.5 for text, on paper of the page's colour."""
    show(browser, files["everything"], scheme=scheme)
    colours = browser.execute_script(
        "const of = (one, what) => getComputedStyle(one)[what];"
        "const one = selector => document.querySelector(selector);"
        "return [of(document.body, 'backgroundColor'), of(document.body, 'color'),"
        " of(one('.quiet'), 'color'), of(one('.chart svg text'), 'fill'),"
        " of(one('.saving'), 'color'), of(one('.numbers summary'), 'color')]"
    )

    def luminance(colour):
        numbers = [float(part) / 255 for part in colour[4:-1].split(",")]
        linear = [
            one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in numbers
        ]
        return sum(
            weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
        )

    paper, *inks = map(luminance, colours)
    assert (paper > 0.5) == (scheme == "light")
    for ink in inks:
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, colours


def test_on_paper_every_table_is_open_and_no_chart_is_cut(browser, files):
    show(browser, files["everything"])
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not browser.execute_script(
        "return document.querySelectorAll('details:not([open])').length"
    )
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    cut = browser.execute_script(
        "const right = document.documentElement.clientWidth + 1;"
        "return [...document.querySelectorAll('.chart svg')].filter("
        "one => one.getBoundingClientRect().right > right).length"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert cut == 0
