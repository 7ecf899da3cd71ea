"""What the pages say that a program can check: their links, the files they name, the defaults they quote."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from mlip_auto.check import check_campaign
from mlip_auto.cli import app
from mlip_auto.config import ENVIRONMENTS_PER_FUNCTION, Loop, Training, Validation, parse_config
from mlip_auto.config_exploration import Exploration
from mlip_auto.config_extraction import Extraction
from mlip_auto.distances import COVALENT_FRACTION
from mlip_auto.exploration import FRAMES_CUT
from mlip_auto.extractor import CLEAN_DEPTH, DEFAULT_BUFFER, FROZEN_MARGIN
from mlip_auto.healing import EQUILIBRATION, ROUNDS, STEPS_A_ROUND
from mlip_auto.lammps_input import CANDIDATE_FRAMES, LATEST_FRAMES
from mlip_auto.starter import Answers, parse_elements, parse_temperatures, write_config

REPO = Path(__file__).parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["method.md", "extending.md"])
def test_the_modules_that_a_page_names_exist(name):
    modules = set(re.findall(r"`(\w+\.py)`", (REPO / "docs" / name).read_text()))
    tested = {path.name for path in (REPO / "tests").rglob("*.py")}
    existing = {path.name for path in (REPO / "scripts" / "mlip_auto").glob("*.py")}
    assert len(modules) > 3 and modules <= existing | tested


def test_the_map_of_the_modules_is_whole():
    page = (REPO / "docs" / "extending.md").read_text()
    table = page.split("## The modules", 1)[1].split("\n## ", 1)[0]
    named = re.findall(r"`(\w+\.py)`", table)
    existing = {path.name for path in (REPO / "scripts" / "mlip_auto").glob("*.py")} - {"__init__.py"}
    assert sorted(named) == sorted(existing)


DEFAULTS = [
    (Training, "energy_weight"),
    (Training, "kappa"),
    (Training, "held_out_fraction"),
    (Exploration, "gamma_every"),
    (Exploration, "uncertainty_threshold"),
    (Exploration, "gamma_select"),
    (Extraction, "max_clusters"),
    (Extraction, "max_atoms"),
    (Extraction, "max_force_change"),
    (Extraction, "min_descriptor_distance"),
    (Extraction, "vacuum"),
    (Loop, "max_generations"),
    (Loop, "confirmations"),
]


@pytest.mark.parametrize(("section", "key"), DEFAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_defaults_of_the_method_are_those_of_the_code(section, key):
    text = (REPO / "docs" / "method.md").read_text()
    assert re.search(rf"`(\w+\.)?{key}` \({section.model_fields[key].default:g}( Å)?\)", text)


def test_the_constants_of_the_method_are_those_of_the_code():
    text = " ".join((REPO / "docs" / "method.md").read_text().split())
    assert f"has {ENVIRONMENTS_PER_FUNCTION} environments a function" in text
    assert f"the last {LATEST_FRAMES} frames" in text
    assert f"({FRAMES_CUT} frames at most)" in text
    assert f"at most {CANDIDATE_FRAMES} a run" in text
    assert f"{COVALENT_FRACTION:g} of the sum of covalent radii" in text
    assert "`extraction.mode: auto` (default)" in text and Extraction().mode == "auto"
    assert "10 steps of FIRE at a time" in text and STEPS_A_ROUND == 10
    assert f"{ROUNDS * STEPS_A_ROUND} steps at most" in text
    assert f"{EQUILIBRATION:g} fs of Langevin dynamics" in text
    assert f"`buffer` ({DEFAULT_BUFFER:g} cutoffs" in text
    assert f"no atom nearer to the surface than {CLEAN_DEPTH:g} cutoffs" in text and f"{FROZEN_MARGIN:g} Å more" in text
    assert Validation().reference_md is None


TUTORIAL = (REPO / "docs" / "tutorial.md").read_text()


def test_the_config_of_the_tutorial_is_what_init_writes_and_passes_check(icet):
    """With the structures that the tutorial adds to it, too; and the numbers that it quotes are in it."""
    (flags,) = re.findall(
        r"^    mlip-auto init cuau --elements (\S+) --oracle (\S+) --temperatures (\S+)$", TUTORIAL, re.M
    )
    answers = Answers(parse_elements(flags[0]), flags[1], parse_temperatures(flags[2]))
    content = yaml.safe_load(write_config(answers))
    (more,) = re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)
    for added in ([], yaml.safe_load(more)):
        families = [*content["initial"]["structures"], *added]
        config = parse_config(content | {"initial": {"structures": families}})
        assert check_campaign(config).errors == []
    random_alloys, pure, _ = content["initial"]["structures"]
    assert f"{random_alloys['count']} random alloys of 32 atoms" in TUTORIAL
    assert f"{pure['count']} crystals of each pure element" in TUTORIAL
    basis = content["training"]["basis"]
    assert f"{basis['number_of_functions_per_element']} functions an element within {basis['cutoff']} Å" in TUTORIAL
    assert f"a box of {content['extraction']['box_side']} Å" in TUTORIAL


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_a_page_names_exist(page):
    known = set(get_command(app).commands)
    named = set(re.findall(r"(?:^    |`)(?:\.venv/bin/)?mlip-auto ([a-z][a-z-]*)", page.read_text(), re.M))
    assert named <= known, named - known
    assert page.name != "tutorial.md" or named >= {"init", "check", "run", "status", "report", "export", "doctor"}
