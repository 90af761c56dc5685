"""The report in a real browser: hostile data does nothing, and what a reader does works, in a sandbox as well."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.forgetting_core.test_report import make_inputs
from tests.unit.forgetting_core.test_report_run import FACTS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")

HOSTILE_NAME = "</script><script>alert(2)</script>\x1b[31m\u202e{{ 7 * 7 }}<img src='http://example.com/x'>"
VISIBLE_NAME = "</script><script>alert(2)</script>␛[31m⟨U+202E⟩{{ 7 * 7 }}<img src='http://example.com/x'>"
VIEWER = "http://viewer.example/"
"""Where a page like MLflow's is pretended to be."""


@dataclass
class Visit:
    """A page, and all that it did unasked."""

    page: Any
    noises: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.noises.append(message.text))
        self.page.on("pageerror", lambda error: self.noises.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.noises.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as api:
        opened = api.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, all of whose names are hostile."""
    folder = tmp_path_factory.mktemp("browser")
    inputs = make_inputs(folder, source=HOSTILE_NAME)
    for path, *_ in inputs.metrics.values():
        metrics = json.loads((path / "metrics.json").read_text())
        (path / "metrics.json").write_text(json.dumps({HOSTILE_NAME: metrics["boolq"], **metrics}))
    evaluate = inputs.recipe.evaluate.model_copy(update={"tasks": [HOSTILE_NAME]})
    inputs.recipe = inputs.recipe.model_copy(update={"evaluate": evaluate})
    runaway = "\n".join(json.dumps({"step": step, "loss_negative": step}) for step in range(1, 11))
    inputs.write(folder / "out", facts=replace(FACTS, curves={**FACTS.curves, "forget": runaway}))
    return folder / "out" / "report.html"


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Visit]:
    """The page opened from its file; in the end it must have been quiet."""
    context = browser.new_context()
    found = Visit(context.new_page())
    found.page.goto(report.as_uri())
    yield found
    context.close()
    assert found.noises == []
    assert found.requests == [report.as_uri()]


@pytest.mark.security("markup in reports, in MLflow and in the terminal")
def test_hostile_text_is_text(visit: Visit) -> None:
    page = visit.page
    row = page.inner_text("#row-view")
    assert "<script>alert(1)</script>" in row and "{{ 7 * 7 }}" in row and "␀␛[31m" in row
    for place in ("#benchmarks", "#negatives", "#row-title"):
        assert VISIBLE_NAME in page.inner_text(place), place
    assert VISIBLE_NAME.replace("␛", "\\e") in page.inner_text("#recipe")  # YAML has its own escapes
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0
    assert not set(page.inner_text("body")) & set("\x00\x1b\u202e")


def test_warnings_are_the_first_thing_that_is_read_and_one_click_away(visit: Visit) -> None:
    page = visit.page
    assert page.locator("section").first.get_attribute("id") == "warnings"
    shown = page.inner_text("#warnings")
    assert "negative loss running away" in shown and "What to change: lower forget.lambda.t_max" in shown
    page.get_by_role("navigation").get_by_role("link").first.click()
    assert page.evaluate("location.hash") == "#warnings"


def test_search_finds_rows_by_text_and_source(visit: Visit) -> None:
    page = visit.page
    assert page.inner_text("#row-count") == "1 of 29"
    page.fill("#search", "row 17 ")
    assert page.inner_text("#row-count") == "1 of 1"
    assert page.inner_text("#row-title").startswith("Row 17 · ")
    page.fill("#search", "")
    page.select_option("#source", VISIBLE_NAME)
    assert page.inner_text("#row-count") == "9 of 15"
    page.fill("#search", "no such text")
    assert page.inner_text("#row-title") == "No row matches"


def test_the_keyboard_reaches_every_token_and_row(visit: Visit) -> None:
    page = visit.page
    page.focus("#next")
    page.keyboard.press("Tab")
    assert "base loss" in page.inner_text("#token-detail")
    first = page.inner_text("#token-detail")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#token-detail") != first
    page.keyboard.press("n")
    assert page.inner_text("#row-count") == "2 of 29"
    assert page.evaluate("location.hash") == "#row=2"
    page.keyboard.press("End")
    page.keyboard.press("p")
    assert page.inner_text("#row-count") == "1 of 29"
    assert page.evaluate("document.activeElement.parentElement.id") == "row-view"


def test_an_address_with_a_row_opens_it(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(f"{report.as_uri()}#row=17")
    assert page.inner_text("#row-title").startswith("Row 17 · ")
    page.close()


def test_without_scripts_the_first_rows_can_be_read(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    found = Visit(context.new_page())
    found.page.goto(report.as_uri())
    assert "<script>alert(1)</script>" in found.page.inner_text("#static-rows")
    assert found.page.locator("#static-rows details").count() == 20
    assert not found.page.is_visible("#browser")
    context.close()
    assert (found.noises, found.requests) == ([], [report.as_uri()])


def test_it_works_in_a_sandbox_like_that_of_the_artifact_viewer(browser: Any, report: Path) -> None:
    context = browser.new_context()
    found = Visit(context.new_page())
    context.route(f"{VIEWER}**", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    found.page.goto(VIEWER)
    found.page.evaluate(
        """html => {
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            frame.src = URL.createObjectURL(new Blob([html], { type: "text/html" }));
            document.body.append(frame);
        }""",
        report.read_text(encoding="utf-8"),
    )
    frame = found.page.frame_locator("iframe")
    assert frame.locator("#row-count").inner_text() == "1 of 29"
    frame.locator("#next").click()
    assert frame.locator("#row-count").inner_text() == "2 of 29"
    frame.get_by_role("link", name="Steps").click()
    assert frame.locator("#steps").evaluate("section => section === document.activeElement")
    context.close()
    assert (found.noises, found.requests) == ([], [VIEWER])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_but_wide_parts_scrolls_sideways_on_a_phone(browser: Any, report: Path, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 400, "height": 800})
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    paper, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    lightness = [sum(map(int, colour[4:-1].split(", "))) for colour in (paper, ink)]
    assert (lightness[0] > lightness[1]) == (scheme == "light")
    context.close()
