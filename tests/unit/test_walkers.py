import math
from pathlib import Path

import pytest
import yaml

from mlip_auto.config import ConfigError, parse_config
from mlip_auto.config_conditions import Deformation
from mlip_auto.walkers import base_walkers, confirmation_name, find_walker, walker_seed

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "al_emt.yaml"

QUENCH = [
    {"temperature": [300, 2000], "steps": 20},
    {"temperature": 300, "steps": 30, "pressure": 0, "barostat": "tri"},
]


@pytest.fixture
def config():
    content = yaml.safe_load(EXAMPLE.read_text())
    structure = {"prototype": "fcc", "supercell": [4, 4, 4]}
    content["exploration"]["steps"] = 1000
    content["exploration"]["walkers"] = [
        {"structure": structure, "temperatures": [300, 1050.5]},
        {"name": "press", "structure": structure, "temperatures": [600], "pressure": 1.0, "steps": 50, "replicas": 2},
        {"name": "ramp", "structure": structure, "temperatures": [[300, 900]], "seed": 5},
        {"name": "quench", "structure": structure, "stages": QUENCH},
    ]
    return parse_config(content)


def test_names_and_conditions(config):
    specs = base_walkers(config)
    assert [spec.name for spec in specs] == [
        "md_300K", "md_1050.5K", "press_600K_r0", "press_600K_r1", "ramp_300-900K", "quench",
    ]  # fmt: skip
    assert [spec.steps for spec in specs] == [1000, 1000, 50, 50, 1000, 50]
    assert [spec.hottest for spec in specs] == [300, 1050.5, 600, 600, 900, 2000]
    assert [[stage.describe() for stage in spec.stages] for spec in specs[2:]] == [
        ["600 K, 1 bar (iso)"],
        ["600 K, 1 bar (iso)"],
        ["300 to 900 K, fixed cell"],
        ["300 to 2000 K, fixed cell", "300 K, 0 bar (tri)"],
    ]


def test_a_walker_may_have_a_seed_of_its_own(config):
    spec = find_walker(config, "ramp_300-900K", 2)
    assert spec.seed == walker_seed(5, 2, "ramp_300-900K") != walker_seed(config.seed, 2, "ramp_300-900K")
    assert find_walker(config, "ramp_300-900K_c1", 2).seed == walker_seed(5, 2, "ramp_300-900K", 1)


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
    assert again.stages == first.stages


def test_unknown_walker_is_named(config):
    with pytest.raises(KeyError, match=r"md_900K.*md_300K, md_1050\.5K"):
        find_walker(config, "md_900K")


STRUCTURE = {"prototype": "fcc", "supercell": [4, 4, 4]}


@pytest.mark.parametrize(
    ("walker", "words"),
    [
        ({"temperatures": [300], "stages": QUENCH}, ["walkers[0]: ", "either `temperatures`", "or `stages`"]),
        ({"stages": QUENCH, "pressure": 0}, ["walkers[0]: pressure: found beside `stages`"]),
        ({"temperatures": [-5]}, ["walkers[0].temperatures[0]: found -5", "above 0"]),
        ({"temperatures": [[300, 600, 900]]}, ["walkers[0].temperatures[0]", "at most 2 items"]),
        ({"temperatures": [300], "steps": 55}, ["walkers[0].steps: found 55", "gamma_every (10)", "60 would do"]),
        ({"stages": [QUENCH[0], QUENCH[1] | {"steps": 34}]}, ["walkers[0].stages[1].steps: found 34", "40 would do"]),
        (
            {"temperatures": [300], "pressure": 0, "barostat": "aniso", "deform": {"strain": {"z": 0.1, "xy": 0.1}}},
            ["walkers[0]: deform: z is deformed and under the barostat (aniso, 0 bar)", "leave `pressure` out"],
        ),
        (
            {"temperatures": [300], "pressure": 0, "barostat": "tri", "deform": {"engineering_rate": {"xy": 0.1}}},
            ["walkers[0]: deform: xy is deformed and under the barostat (tri"],
        ),
        ({"temperatures": [300], "deform": {}}, ["walkers[0].deform: names no component"]),
        (
            {"temperatures": [300], "deform": {"strain": {"x": 0.1}, "true_rate": {"x": 0.1}}},
            ["walkers[0].deform: x is deformed in two ways"],
        ),
        (
            {"temperatures": [300], "deform": {"engineering_rate": {"x": -1.0}}},
            ["walkers[0].deform.engineering_rate.x: a strain of -2 after 1000 steps"],
        ),
        (
            {"temperatures": [300], "structure": {"data_set": True, "file": "a.cif"}},
            ["structure: found `file` and `data_set`"],
        ),
    ],
)
def test_bad_walkers_are_refused_with_one_message(walker, words):
    content = yaml.safe_load(EXAMPLE.read_text())
    content["exploration"] |= {"steps": 1000, "walkers": [{"structure": STRUCTURE} | walker]}
    with pytest.raises(ConfigError) as refused:
        parse_config(content)
    (error,) = refused.value.errors
    for word in words:
        assert word in error


def test_tilts_may_be_sheared_under_a_barostat_of_lengths():
    content = yaml.safe_load(EXAMPLE.read_text())
    walker = {"structure": STRUCTURE, "temperatures": [300], "pressure": 0, "deform": {"strain": {"xy": 0.1}}}
    content["exploration"]["walkers"] = [walker]
    (spec,) = base_walkers(parse_config(content))
    assert spec.stages[0].describe() == "300 K, 0 bar (iso), xy deformed"


def test_final_strains():
    deform = Deformation(strain={"x": 0.1}, engineering_rate={"xy": 0.02}, true_rate={"z": -0.5})
    assert deform.final_strains(2.0) == pytest.approx({"x": 0.1, "xy": 0.04, "z": math.exp(-1) - 1})
    assert deform.engineering_rates(2.0) == pytest.approx({"x": 0.05, "xy": 0.02})
