"""An auditor's visit to MLflow's pages, by clicking links only: from the experiment to the bytes of the raw file.

Screenshots go to the folder that `FORGETTING_SCREENSHOTS` names, if it is set.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.cli import Cli
from tests.mlflow_server import MlflowServer
from tests.tiny import save_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 30
"""A page may take this long on a busy machine."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH to look at MLflow's pages with"),
]

RECIPE = """
name: audited
model: {{path: {folder}/model}}
data: {{train: [{folder}/instructions.jsonl], template: plain, max_length: 48}}
split: {{train_rows: 24, reference_rows: 12, validation_rows: 8, seed: 1}}
reference: &training
  mode: lora
  lora: {{r: 4, alpha: 4, dropout: 0.0}}
  learning_rate: 1e-3
  rows_per_step: 8
  dtype: float32
score: {{dtype: float32}}
partition: {{rho: "0.7"}}
baselines: []
forget:
  <<: *training
  objective: forget
  lambda: {{schedule: linear, t_min: 1e-5, t_max: 0.01}}
evaluate: {{tasks: [], dtype: float32}}
"""


@dataclass
class Audited:
    """Two runs of one recipe, ρ 0.7 and then 0.5, on a real server."""

    server: MlflowServer
    raw_file: Path

    @property
    def start(self) -> str:
        """What the auditor is given: the address of the experiment, id 1 in a fresh database."""
        return f"{self.server.uri}/#/experiments/1/runs?workflowType=machine_learning"


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    save_model(folder / "model")
    raw_file = folder / "instructions.jsonl"
    rows = [{"prompt": f"what is {n}", "completion": f"{n} is {n % 5}"} for n in range(48)]
    raw_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = folder / "audited.yaml"
    recipe.write_text(RECIPE.format(folder=folder))
    server = MlflowServer(folder / "mlflow").start()
    cli = Cli(folder / "state", {"MLFLOW_TRACKING_URI": server.uri})
    cli.run("run", str(recipe))
    cli.run("run", str(recipe), "--set", "partition.rho=0.5")
    yield Audited(server, raw_file)
    server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # root, as in a container, has no sandbox
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A browser that has never been here, and what was clicked in it."""

    page: Page
    folder: Path
    clicks: list[str] = field(default_factory=list)

    def follow(self, link: Locator) -> None:
        """Click a link, wherever it opens."""
        self.clicks.append(link.first.inner_text())
        tabs = len(self.page.context.pages)
        link.first.click()
        self.page.wait_for_timeout(500)
        if len(self.page.context.pages) > tabs:
            self.page = self.page.context.pages[-1]

    def look(self, *texts: str | re.Pattern[str]) -> None:
        """The page shows `texts`; photographed."""
        for text in texts:
            expect(self.page.get_by_text(text).first).to_be_visible(timeout=SECONDS * 1000)
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=self.folder / f"{len(self.clicks)}.png")

    def link(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("link", name=name, exact=True)

    def unfold(self) -> None:
        """Show all of a run's description."""
        self.page.get_by_text("Show more", exact=True).first.click()

    def row(self, step: str) -> Locator:
        """The row of a step in the table of a description."""
        first_cell = self.page.locator(f"td:first-child a:text-is('{step}')")
        return self.page.locator("table tr").filter(has=first_cell)


@pytest.fixture
def visit(audited: Audited, browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    kept = os.environ.get("FORGETTING_SCREENSHOTS")
    folder = Path(kept) / request.node.name if kept else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": 1600, "height": 1100})
    page = context.new_page()
    page.goto(audited.start)
    yield Visit(page, folder)
    context.close()


def test_from_the_experiment_to_the_raw_file_by_clicking_links_only(visit: Visit, audited: Audited) -> None:
    digest = hashlib.sha256(audited.raw_file.read_bytes()).hexdigest()
    visit.look("audited ρ=0.7", "of models fine-tuned by")

    visit.follow(visit.link(re.compile("audited ρ=0.7")))
    visit.look("final model and its lineage", digest)

    visit.follow(visit.link("final model and its lineage"))
    visit.look("audited forget checkpoint", "score[reference]", digest)

    visit.follow(visit.row("reference").get_by_role("link", name="reference checkpoint"))
    visit.look("audited reference checkpoint", digest)

    visit.follow(visit.row("reference").get_by_role("link", name="split reference"))
    visit.look(digest, str(audited.raw_file))
    assert len(visit.clicks) == 4, visit.clicks


def test_the_second_run_shows_what_was_cached_and_leads_to_the_first(visit: Visit) -> None:
    visit.follow(visit.link(re.compile("audited ρ=0.5")))
    visit.look("4 ran, 4 cached")
    visit.unfold()
    cached = visit.page.locator("table tr").filter(has_text="cached")
    steps = {row.split()[0] for row in cached.all_inner_texts()}
    assert steps == {"split", "score[base]", "reference", "score[reference]"}
    visit.follow(visit.row("reference").get_by_role("link", name="made by this run"))
    visit.look("of pipeline run")
    assert visit.link("audited ρ=0.7").first.is_visible()
    visit.follow(visit.link("audited ρ=0.7"))
    visit.look(re.compile("audited ρ=0.7 · 8 ran"))


def test_the_experiment_offers_runs_with_recipe_rho_metrics_and_counts_as_columns(visit: Visit) -> None:
    visit.look("audited ρ=0.7")
    visit.follow(visit.link("Runs with recipe, ρ, metrics and cached steps"))
    grid = visit.page.locator(".ag-root")
    for column in ("steps_ran", "steps_cached", "rho", "recipe", "forget/held_out/loss"):
        expect(grid.get_by_text(column, exact=True).first).to_be_attached(timeout=SECONDS * 1000)
    visit.look("steps_ran")
    names = [text for text in grid.get_by_role("link").all_inner_texts() if text.startswith("audited")]
    assert [name[: len("audited ρ=0.5")] for name in names] == ["audited ρ=0.5", "audited ρ=0.7"]


def test_the_registered_model_says_what_it_is(visit: Visit, audited: Audited) -> None:
    visit.follow(visit.link(re.compile("audited ρ=0.5")))
    visit.follow(visit.link("audited version 2"))
    visit.look("score[reference]", "rho", "current", hashlib.sha256(audited.raw_file.read_bytes()).hexdigest())
    visit.follow(visit.link("audited"))
    visit.look("fine-tuned by the recipe")
