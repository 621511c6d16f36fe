"""The report's page in a real browser: self-contained, and readable at every size."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.features.report.run_report import run_report
from rolling_upgrade.features.report.view import html_values
from tests.support.browser import Browser, browser
from tests.support.run_reports import BAD, LOAD, SECOND, hostile, record

CASES = {
    "good": lambda: run_report(record(SECOND, requests=LOAD)),
    "undone": lambda: run_report(record(BAD, unreachable={"web2": "timed out"})),
    "hostile": hostile,
}
#: Every visible text with its contrast to the background, and every drawing with 1.5 times its contrast: texts need
#: 4.5, drawings 3. Source: WCAG 2.2, relative luminance.
CONTRASTS = """
(() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const style = element => getComputedStyle(element);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('svg') || !element.getClientRects().length) continue;
    found.push([walker.currentNode.data.trim().slice(0, 40), ratio(channels(style(element).color), behind(element))]);
  }
  for (const element of document.querySelectorAll('.bar'))
    if (element.getClientRects().length)
      found.push(['bar', 1.5 * ratio(channels(style(element).backgroundColor), behind(element.parentElement))]);
  for (const element of document.querySelectorAll('svg rect'))
    found.push(['rect', 1.5 * ratio(channels(getComputedStyle(element).fill), behind(element.closest('svg')))]);
  return found;
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(params=CASES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(rendering.report_page(html_values(CASES[request.param]())), encoding="utf-8")
    return path


def test_page_loads_nothing_and_logs_nothing(chromium: Browser, file: Path) -> None:
    chromium.events.clear()
    chromium.open(file)
    chromium.value("1")

    methods = [event.get("method") for event in chromium.events]
    requested = [
        event["params"]["request"]["url"]
        for event in chromium.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in requested if not url.startswith("data:")] == [file.as_uri()]
    assert not {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"} & set(methods)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1600])
def test_page_fits_and_every_text_is_readable(chromium: Browser, file: Path, width: int, dark: bool) -> None:
    chromium.open(file, width=width, dark=dark)

    assert chromium.value("document.documentElement.scrollWidth") <= width
    contrasts = chromium.value(CONTRASTS)
    assert len(contrasts) > 20
    assert [pair for pair in contrasts if pair[1] < 4.5] == []


@pytest.mark.parametrize("width", [360, 1600])
def test_page_has_its_timeline_and_legends_at_every_width(chromium: Browser, file: Path, width: int) -> None:
    chromium.open(file, width=width)

    bars = "[...document.querySelectorAll('.bar')].map(e => e.getBoundingClientRect().width)"
    assert chromium.value(bars)
    assert min(chromium.value(bars)) > 0
    drawings = chromium.value("document.querySelectorAll('svg').length")
    assert chromium.value("document.body.innerText").count(". Red: ") == drawings


def test_page_structure_serves_a_screen_reader(chromium: Browser, file: Path) -> None:
    chromium.open(file)

    levels = chromium.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert chromium.value("document.documentElement.lang") == "en"
    assert chromium.value("document.title") != ""
    assert chromium.value("document.querySelectorAll('main').length") == 1
    assert chromium.value("[...document.querySelectorAll('table')].every(t => t.querySelector('th[scope=col]'))")
    assert chromium.value("[...document.querySelectorAll('svg, .bar')].every(e => e.getAttribute('aria-label'))")
    assert chromium.value(
        "[...document.querySelectorAll('section')]"
        ".every(s => document.getElementById(s.getAttribute('aria-labelledby')))"
    )


def test_page_can_be_printed(chromium: Browser, file: Path) -> None:
    chromium.open(file, dark=True)

    printed = chromium.pdf()

    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 1


def test_page_shows_hostile_texts_as_text(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(rendering.report_page(html_values(hostile())), encoding="utf-8")
    chromium.open(path)

    assert chromium.value("document.scripts.length") == 0
    assert "<script>alert(1)</script>" in chromium.value("document.querySelector('pre').textContent")
    assert "{{ 7 * 7 }}" in chromium.value("document.querySelector('h1').textContent")
