from pathlib import Path

import pytest
import yaml

from mlip_auto.config import parse_config
from mlip_auto.walkers import base_walkers, confirmation_name, find_walker, walker_seed

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "al_emt.yaml"


@pytest.fixture
def config():
    content = yaml.safe_load(EXAMPLE.read_text())
    structure = {"prototype": "fcc", "supercell": [4, 4, 4]}
    content["exploration"]["steps"] = 1000
    content["exploration"]["walkers"] = [
        {"structure": structure, "temperatures": [300, 1050.5]},
        {"name": "press", "structure": structure, "temperatures": [600], "pressure": 1.0, "steps": 50, "replicas": 2},
    ]
    return parse_config(content)


def test_names_and_conditions(config):
    specs = base_walkers(config)
    assert [spec.name for spec in specs] == ["md_300K", "md_1050.5K", "press_600K_r0", "press_600K_r1"]
    assert [(spec.temperature, spec.pressure, spec.steps) for spec in specs[1:3]] == [
        (1050.5, None, 1000),
        (600, 1.0, 50),
    ]


def test_seeds_differ_by_campaign_generation_walker_and_confirmation():
    base = walker_seed(1, 0, "md_300K")
    others = [
        walker_seed(2, 0, "md_300K"),
        walker_seed(1, 1, "md_300K"),
        walker_seed(1, 0, "md_600K"),
        walker_seed(1, 0, "md_300K", 1),
        walker_seed(1, 0, "md_300K", 2),
    ]
    assert len({base, *others}) == 6
    assert all(1 <= seed <= 2**31 - 1 for seed in others)
    assert base == 1149277332  # a campaign taken up by another version must repeat its velocities


def test_confirmation_is_the_same_walker_with_a_fresh_seed(config):
    name = confirmation_name("press_600K_r1", 2)
    assert name == "press_600K_r1_c2"
    first, again = find_walker(config, "press_600K_r1", 3), find_walker(config, name, 3)
    assert again.name == name
    assert again.seed == walker_seed(config.seed, 3, "press_600K_r1", 2) != first.seed
    assert (again.temperature, again.pressure, again.steps) == (first.temperature, first.pressure, first.steps)


def test_unknown_walker_is_named(config):
    with pytest.raises(KeyError, match=r"md_900K.*md_300K, md_1050\.5K"):
        find_walker(config, "md_900K")
