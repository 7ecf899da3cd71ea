"""The dashboard and the report of real campaigns, as a reader in Chromium meets them."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from mlip_auto.report_data import get_panel
from mlip_auto.state import read_summaries
from mlip_auto.structures import read_structures

pytestmark = pytest.mark.slow

SECTIONS = ["generations", "md", "coverage", "parity", "guide", "dft", "cuts", "settings"]
SMALLEST_FONT = 12  # px


@pytest.fixture(scope="module")
def wide(visit, campaign):
    return visit(campaign.dashboard)


@pytest.fixture(scope="module")
def narrow(visit, campaign):
    return visit(campaign.dashboard, width=400, scheme="dark")


@pytest.fixture(scope="module")
def summaries(campaign):
    return read_summaries(campaign)


def test_every_section_is_there_and_in_the_contents(wide):
    links = wide.page.eval_on_selector_all("nav a", "links => links.map(link => link.getAttribute('href'))")
    sections = wide.page.eval_on_selector_all("main section h2", "heads => heads.map(head => head.parentElement.id)")
    assert links == [f"#{name}" for name in SECTIONS]
    assert sections == ["verdict", *SECTIONS]
    assert wide.page.inner_text("#verdict h2").startswith(
        "Not converged. Stopped in generation 1: loop.max_generations"
    )
    assert wide.page.get_attribute("header time", "datetime")


def test_tables_are_those_of_the_summaries(wide, summaries):
    for row, summary in zip(wide.read_rows("#generations table"), summaries, strict=True):
        keys = ("generation", "candidates", "selected", "labelled", "failed")
        assert row[:5] == [str(summary[key]) for key in keys]
        errors = [summary["rmse"][part]["force"] for part in ("train", "held_out")]
        assert row[5] == " / ".join([*(f"{1000 * error:.3g}" for error in errors), "–"])
        assert row[7] == f"{summary['gamma_max']:.3g}"
        assert row[10] == f"{summary['core_hours']:.3g}"
    runs = {(row[0], row[1]): row for row in wide.read_rows("#md-runs")}
    walkers = {(name, str(s["generation"])): walker for s in summaries for name, walker in s["walkers"].items()}
    assert runs.keys() == walkers.keys()
    for key, walker in walkers.items():
        assert runs[key][2:4] == [walker["outcome"], f"{walker['step']} of {walker['steps']}"]
        assert runs[key][9:11] == [str(walker["seed"]), walker["reason"]]


def test_curves_are_those_of_the_summaries(wide, summaries):
    curves = {curve["name"]: curve for curve in wide.read_curves("force_error")}
    for name, part in (("train", "train"), ("held-out", "held_out")):
        assert curves[name]["y"] == pytest.approx([1000 * summary["rmse"][part]["force"] for summary in summaries])
    for summary in summaries:
        for name, walker in summary["walkers"].items():
            label = f"{name}, generation {summary['generation']}"
            curves = [curve for curve in wide.read_curves(f"md_{get_panel(name)}") if curve["name"] == label]
            assert max(curves[0]["y"]) == pytest.approx(walker["gamma_max"], rel=1e-5)
            assert curves[0]["x"][-1] == pytest.approx(walker["time_ps"])


def test_cuts_are_those_of_the_files(wide, campaign, summaries):
    extracted = [len(read_structures(campaign.generation(summary["generation"]).extracted)) for summary in summaries]
    rows = wide.read_rows("#cut-table")
    assert len(rows) == sum(extracted) > 1
    assert wide.page.inner_text("#cut-title").startswith(f"Cut 1 of {len(rows)}: generation 1")
    for number in range(1, len(rows) + 1):
        wide.page.get_by_role("button", name=f"View cut {number}", exact=True).click()
        expect(wide.page.locator("#cut-title")).to_have_text(re.compile(f"^Cut {number} of {len(rows)}: "))
        wide.page.wait_for_function(f"document.getElementById('cut-plot').data[0].x.length === {rows[number - 1][6]}")
    has_bonds = "document.getElementById('cut-plot').data.some(curve => curve.name === 'bonds')"
    wide.page.check("#bonds")
    wide.page.wait_for_function(has_bonds)
    wide.page.uncheck("#bonds")
    wide.page.wait_for_function(f"!{has_bonds}")


def test_the_view_of_a_cut_turns(wide):
    read_camera = "document.getElementById('cut-plot')._fullLayout.scene._scene.getCamera().eye"
    canvas = wide.page.locator("#cut-plot canvas").first
    before = wide.page.evaluate(read_camera)

    def turn() -> bool:
        canvas.hover()  # waits until the figure has come to rest
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        wide.page.mouse.down()
        wide.page.mouse.move(x + 150, y + 40, steps=5)
        wide.page.mouse.up()
        wide.page.wait_for_timeout(500)
        after = wide.page.evaluate(read_camera)
        return abs(after["x"] - before["x"]) + abs(after["y"] - before["y"]) > 0.1

    # On a busy machine a drag may fall into the drawing of the figure, which ends it: a user drags again.
    assert any(turn() for _ in range(20))


def test_filters(wide, summaries):
    page = wide.page
    page.select_option("#filter-generation", "0")
    page.select_option("#filter-walker", "md_900K")
    expect(page.locator("#filter-result")).to_have_text(f"1 of {sum(len(s['walkers']) for s in summaries)} MD runs")
    assert [row[:2] for row in wide.read_rows("#md-runs")] == [["md_900K", "0"]]
    assert page.is_hidden("#md_md_300K") and page.is_visible("#md_md_900K")
    curves = [curve for curve in wide.read_curves("md_md_900K") if curve["meta"]]
    assert {curve["meta"]["generation"]: curve["visible"] for curve in curves} == {0: True, 1: False}
    assert "generation 0" in page.inner_text("#cut-title")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelectorAll('#md-runs tbody tr[hidden]').length === 0")
    assert page.is_visible("#md_md_300K")
    assert all(curve["visible"] for curve in wide.read_curves("md_md_900K"))


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_readable_without_scrolling_sideways(request, width):
    page = request.getfixturevalue(width).page
    # Waited for: figures take their new width a moment after a filter has changed the page.
    page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")
    smallest = page.evaluate(
        """Math.min(...[...document.querySelectorAll('body *')].filter(element => element.checkVisibility() &&
             [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
             .map(element => parseFloat(getComputedStyle(element).fontSize)))"""
    )
    assert smallest >= SMALLEST_FONT
    page.wait_for_function(
        """[...document.querySelectorAll('.plot svg.main-svg')].filter(svg => svg.checkVisibility() &&
             svg.getBoundingClientRect().width > svg.closest('figure').getBoundingClientRect().width).length === 0"""
    )


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_axe_finds_nothing(request, width):
    """Contrast, names, order of headings and more, light and dark: by axe-core."""
    found = Axe().run(request.getfixturevalue(width).page)
    assert found.violations_count == 0, found.generate_report()


def test_keyboard(narrow):
    """On a page where nothing was clicked yet: the tabulator starts at its top."""
    page = narrow.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    stops = []
    for _ in range(len(SECTIONS) + 3):
        page.keyboard.press("Tab")
        stops.append(
            page.evaluate(
                """(() => { const style = getComputedStyle(document.activeElement);
                   return {outline: style.outlineStyle, width: parseFloat(style.outlineWidth),
                     what: document.activeElement.getAttribute('href') ?? document.activeElement.id}; })()"""
            )
        )
    assert [stop["what"] for stop in stops[: len(SECTIONS)]] == [f"#{name}" for name in SECTIONS]
    assert [stop["what"] for stop in stops[len(SECTIONS) :]][:2] == ["filter-generation", "filter-walker"]
    assert all(stop["outline"] != "none" and stop["width"] >= 2 for stop in stops)
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'verdict'")


def test_dark_page_and_print_have_their_colours(narrow):
    ground = "document.querySelector('#force_error .plot').layout.paper_bgcolor"
    paper = "getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()"
    assert narrow.page.evaluate(ground) == narrow.page.evaluate(paper) == "#161b21"
    narrow.page.emulate_media(media="print")
    narrow.page.wait_for_function(f"{ground} === '#ffffff'")
    assert narrow.page.is_hidden("#filters") and narrow.page.is_visible("#verdict")
    narrow.page.emulate_media(media="screen")
    narrow.page.wait_for_function(f"{ground} === '#161b21'")


def test_printed_figures_have_the_width_of_the_paper(wide):
    width = "[...document.querySelectorAll('.plot svg.main-svg')].map(svg => svg.getBoundingClientRect().width)"
    wide.page.emulate_media(media="print")
    wide.page.wait_for_function(f"{width}.every(width => width === 660)")
    wide.page.emulate_media(media="screen")
    wide.page.wait_for_function(f"{width}.every(width => width !== 660)")


def test_a_filter_chosen_while_figures_are_drawn_holds_for_all(visit, campaign):
    found = visit(campaign.dashboard, drawn=False)
    found.page.select_option("#filter-generation", "0")
    found.page.wait_for_selector("html[data-drawn]", state="attached")
    assert {row[1] for row in found.read_rows("#md-runs")} == {"0"}
    for figure in ("md_md_900K", "label_times"):  # among the first and the last that are drawn
        curves = [curve for curve in found.read_curves(figure) if curve["meta"]]
        assert {curve["meta"]["generation"]: curve["visible"] for curve in curves} == {0: True, 1: False}
    assert found.errors == []


def test_no_error_and_no_network(wide, narrow, campaign):
    """Last, after all that was clicked above."""
    for found in (wide, narrow):
        assert found.errors == []
        others = [url for url in found.requests if not url.startswith(("data:", "blob:"))]
        assert {url.partition("#")[0] for url in others} == {campaign.dashboard.resolve().as_uri()}


def test_a_failed_job_is_said_first(visit, failed_page):
    """Its reason next, without a traceback; what is known so far below."""
    found = visit(failed_page)
    page = found.page
    assert page.inner_text("#verdict h2").startswith("Broken in generation 0: collect_labels failed; the end of ")
    assert "bad" in page.get_attribute("#verdict", "class")
    sentences = page.locator("#verdict p").all_inner_texts()
    assert re.match(r"mlip_auto\.labelling\.TooManyFailures: \d+ of \d+ labels failed, ", sentences[0])
    assert "dft.outlier_deviations allows 1" in sentences[1]
    assert sentences[-1].endswith("the same command goes on from here.")
    assert not any("File " in sentence for sentence in sentences)
    sections = page.eval_on_selector_all("main section", "all => all.map(section => section.id)")
    assert sections == ["verdict", "dft", "settings"]
    assert page.is_hidden("text=No label failed.")
    (rung,) = found.read_rows("#rungs")
    assert rung[:2] == ["as asked", "0"] and rung[2] == rung[3]
    assert found.errors == []


def test_a_broken_campaign_says_so_first(visit, broken):
    (summary,) = read_summaries(broken)
    assert summary["failed"] > 1 and summary["decision"] == "stopped"
    assert {walker["outcome"] for walker in summary["walkers"].values()} == {"crashed"}
    found = visit(broken.dashboard)
    assert found.errors == []
    headline = found.page.inner_text("#verdict h2")
    assert headline.startswith(f"MD of md_8000K crashed; {summary['failed']} labels failed. Not converged. Stopped")
    assert "bad" in found.page.get_attribute("#verdict", "class")
    assert summary["walkers"]["md_8000K"]["reason"] in found.page.inner_text("#verdict p >> nth=0")
    (failure,) = found.read_rows("#failures")
    assert failure[:3] == ["outlier", "0", str(summary["failed"])] and "outlier_deviations allows 1" in failure[3]


def test_the_report_leads_to_the_dashboard_and_all_generations(visit, report, summaries):
    found = visit(report, drawn=False)
    page = found.page
    page.get_by_text("Campaign", exact=True).first.wait_for()
    categories = page.evaluate("Object.keys(categories)")
    assert categories == ["Campaign", "Generations"]
    names = page.evaluate("Object.values(results).map(({name, labels}) => [name, labels.generation])")
    assert [name for name, _ in names].count("dashboard.html") == 1
    figures = [generation for name, generation in names if name == "generation.svg"]
    assert sorted(figures) == [f"{summary['generation']:03d}" for summary in summaries]
    page.get_by_text("Campaign", exact=True).first.click()
    page.get_by_text("dashboard", exact=True).first.wait_for()
    assert found.errors == []
    assert not [url for url in found.requests if re.match(r"https?:", url)]
