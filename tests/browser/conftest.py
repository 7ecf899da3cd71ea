"""Real campaigns, and a real headless Chromium to look at their pages."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mlip_auto.paths import CampaignPaths

TINY = Path(__file__).parents[1] / "workflow" / "tiny.yaml"
# Debian's Chromium refuses to run as root in its sandbox; the 3D view needs WebGL, here without a graphics card.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 240_000  # ms: a busy machine draws slowly
expect.set_options(timeout=PATIENCE)


@dataclass
class Visit:
    """A page that was opened, what went wrong on it, and what it asked the network for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def read_curves(self, figure: str) -> list[dict[str, Any]]:
        """Name, x, y, meta and visibility of each curve of a figure as plotly has drawn it."""
        return self.page.evaluate(
            """id => {
                 const array = values => Array.from(values?._inputArray ?? values ?? []);  // plotly's own name for it
                 return document.querySelector(`#${id} .plot`).data.map(({name, x, y, meta, visible}) =>
                   ({name, x: array(x), y: array(y), meta, visible: visible ?? true}));
               }""",
            figure,
        )

    def read_rows(self, table: str) -> list[list[str]]:
        """Texts of the visible rows of a table's body."""
        return self.page.evaluate(
            """table => [...document.querySelectorAll(`${table} tbody tr`)].filter(row => !row.hidden)
                 .map(row => [...row.cells].map(cell => cell.innerText.trim()))""",
            table,
        )


Visitor = Callable[..., Visit]


@pytest.fixture(scope="module")  # a Chromium that stays would draw on beside the tests that follow
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        missing = "needs a Chromium: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Visitor:
    """Opens a file as a user would, from disk; `drawn`: waits until the dashboard says that all its figures are."""

    def open_file(file: Path, width: int = 1280, scheme: str = "light", drawn: bool = True) -> Visit:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        found = Visit(page)
        page.on("console", lambda message: found.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(file.resolve().as_uri(), wait_until="load" if drawn else "commit")
        if drawn:
            page.wait_for_selector("html[data-drawn]", state="attached")
        return found

    return open_file


def run_campaign(folder: Path, content: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    config = folder / "config" / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(content))
    return run_command("run", "--cores", "2", folder=folder)


def run_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("mlip-auto")
    return subprocess.run(
        [program, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="session")
def campaign(tmp_path_factory) -> CampaignPaths:
    """Two generations, each with a halt; it stops at its limit of generations."""
    folder = tmp_path_factory.mktemp("pages") / "tiny"
    done = run_campaign(folder, yaml.safe_load(TINY.read_text()))
    assert done.returncode == 3, done.stdout
    return CampaignPaths(folder)


def make_bad_config(max_failed_fraction: float) -> dict[str, Any]:
    """Labels are refused as outliers, MD crashes at a time step that is far too long."""
    content = yaml.safe_load(TINY.read_text())
    small_cells = {"prototype": "fcc", "a": 4.05, "count": 40, "rattles": [0.05], "strain": 0.02, "shear": 0.02}
    content["initial"]["structures"] = [small_cells]
    content["selection"]["max_structures"] = 40
    content["dft"] |= {"outlier_deviations": 1, "structures_per_shard": 40, "max_failed_fraction": max_failed_fraction}
    content["exploration"] |= {"timestep": 20.0, "uncertainty_threshold": 1e9}
    content["exploration"]["walkers"][0]["temperatures"] = [8000]
    content["loop"]["max_generations"] = 1
    return content


@pytest.fixture(scope="session")
def failed_page(tmp_path_factory) -> Path:
    """The dashboard after a job has failed: of a campaign that allows no label to fail."""
    folder = tmp_path_factory.mktemp("pages") / "broken"
    done = run_campaign(folder, make_bad_config(max_failed_fraction=0.0))
    assert done.returncode == 1, done.stdout
    return shutil.copy(CampaignPaths(folder).dashboard, folder / "failed.html")


@pytest.fixture(scope="session")
def broken(failed_page) -> CampaignPaths:
    """The same campaign, allowed to go on: its MD crashes, and nothing converges."""
    done = run_campaign(failed_page.parent, make_bad_config(max_failed_fraction=0.5))
    assert done.returncode == 3, done.stdout
    return CampaignPaths(failed_page.parent)


@pytest.fixture(scope="session")
def report(campaign) -> Path:
    """report.html of `mlip-auto report`, unpacked."""
    done = run_command("report", folder=campaign.root)
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(campaign.root / "report.zip") as archive:
        archive.extractall(campaign.root / "unpacked")
    return next((campaign.root / "unpacked").rglob("report.html"))
