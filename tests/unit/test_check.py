"""Each bad input is refused with one clear message; what is shipped passes."""

import copy
from pathlib import Path

import ase.io
import pytest
import yaml
from ase.build import bulk

from mlip_auto.check import CheckResult, check_campaign
from mlip_auto.config import ConfigError, load_config, parse_config

CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = [CONFIG / "config.yaml", *sorted((CONFIG / "examples").glob("*.yaml"))]
SILICON = yaml.safe_load((CONFIG / "config.yaml").read_text())
ALUMINIUM = yaml.safe_load((CONFIG / "examples" / "al_emt.yaml").read_text())
REMOVED = object()


def change(content: dict, changes: dict) -> dict:
    """A copy with the values at dotted keys (list indices as numbers) set or REMOVED."""
    changed = copy.deepcopy(content)
    for key, value in changes.items():
        *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        place = changed
        for part in path:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return changed


def check(content: dict, directory: Path = Path()) -> CheckResult:
    """Both gates in the order a campaign meets them."""
    try:
        config = parse_config(content)
    except ConfigError as error:
        return CheckResult(errors=error.errors)
    return check_campaign(config, directory)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_pass(path, request):
    if "espresso" in path.name:
        request.getfixturevalue("pw_x")  # its pseudopotentials are looked at
    assert check_campaign(load_config(path)) == CheckResult()


CASES = {
    "unknown key": (
        {"exploration.timestp": 1.0},
        ["exploration.timestp: unknown key ('timestep' was meant?)", "steps"],
    ),
    "key in the wrong section": (
        {"exploration.pressure": 1.0},
        ["exploration.pressure: unknown key ('exploration.walkers.pressure' or ", "was meant?)"],
    ),
    "list that is too short": (
        {"exploration.walkers.0.structure.supercell": [4, 4]},
        ["exploration.walkers[0].structure.supercell[2]: missing; the list is too short"],
    ),
    "no structures": ({"initial.structures": []}, ["initial.structures: found []; at least one entry is needed"]),
    "no frame of the reference": (
        {"validation.reference_md": {"steps": 300, "every": 241}},
        ["validation.reference_md: every: found 241; at most 240"],
    ),
    "rattle without room": (
        {"initial.structures.0.rattles": [0.1, 1.5]},
        ["initial.structures[0].rattles: 100 draws with displacements of 1.5 Å", "lower `rattles`"],
    ),
    "no list": (
        {"exploration.walkers.0.temperatures": "300, 900"},
        ["exploration.walkers[0].temperatures: found '300, 900'; a list is needed"],
    ),
    "empty section": ({"dft": None}, ["dft: found nothing; a section is needed"]),
    "name of a path": ({"name": "al/emt"}, ["name: found 'al/emt'; must be letters and digits"]),
    "barostat without pressure": (
        {"exploration.walkers.0.barostat": "tri"},
        ["exploration.walkers[0]: barostat: found 'tri'", "`pressure`"],
    ),
    "negative timestep": ({"exploration.timestep": -1.0}, ["exploration.timestep", "-1.0", "greater than 0"]),
    "resumed walkers that nothing confirms from the start": (
        {"exploration.resume": "restart", "loop.confirmations": 0},
        ["loop.confirmations: found 0 with exploration.resume restart", "give at least 1"],
    ),
    "threshold below 1": ({"exploration.uncertainty_threshold": 0.5}, ["uncertainty_threshold", "0.5", "equal to 1"]),
    "no temperature": (
        {"exploration.walkers.0.temperatures": []},
        ["exploration.walkers[0]: ", "`temperatures`", "`stages`"],
    ),
    "element without a source": (
        {
            "system.elements": ["Al", "Cu"],
            "initial.structures.0.formula": "Al",
            "exploration.walkers.0.structure.formula": "Al",
        },
        ["system.elements", "Cu", "no crystal", "prototype"],
    ),
    "neither prototype nor file": (
        {"initial.structures.0.prototype": REMOVED},
        ["initial.structures[0]", "prototype", "file"],
    ),
    "unknown prototype": (
        {"initial.structures.0.prototype": "perovskite"},
        ["initial.structures[0].prototype", "'perovskite'", "fcc, bcc"],
    ),
    "no formula": (
        {
            "system.elements": ["Al", "Cu"],
            "exploration.walkers.0.structure.formula": "Al",
        },
        ["initial.structures[0].formula", "Al, Cu"],
    ),
    "prototype of other formula": (
        {"initial.structures.0.prototype": "rocksalt"},
        ["initial.structures[0].prototype", "rocksalt", "'Al'", "2 atoms"],
    ),
    "stranger in a formula": (
        {"exploration.walkers.0.structure.formula": "Cu"},
        ["exploration.walkers[0].structure.formula", "Cu", "system.elements allows Al"],
    ),
    "lattice constant too small": (
        {"initial.structures.0.a": 2.0},
        ["initial.structures[0]", "1.41 Å", "initial.min_distance.Al-Al", "1.69 Å"],
    ),
    "composition without whole atoms": (
        {
            "system.elements": ["Al", "Cu"],
            "initial.structures.0.composition": {"Al": 0.99, "Cu": 0.01},
            "exploration.walkers.0.structure.formula": "Al",
            "training.basis.number_of_functions_per_element": 5,
        },
        ["initial.structures[0].composition.Cu", "0.01 of 32 atoms", "supercell"],
    ),
    "box below twice the cutoff": ({"extraction.box_side": 8.1}, ["extraction.box_side", "8.1 Å", "10 Å"]),
    "box narrower as whole cells": (
        {"extraction.box_side": 10.0, "training.basis.cutoff": 5.0},
        ["extraction.box_side", "10 Å", "8.1 Å wide"],
    ),
    "core larger than its box": (
        {"extraction.core_radius": 7.0},
        ["extraction.core_radius", "found 7 Å", "12.15 Å", "extraction.trained_radius"],
    ),
    "cell larger than DFT can afford": (
        {"extraction": {"mode": "cell"}},
        ["exploration.walkers[0].structure", "extraction.max_atoms", "found 200", "256 atoms", "extraction.mode: box"],
    ),
    "cluster larger than DFT can afford": (
        {"extraction": {"mode": "cluster", "max_atoms": 150}},
        ["extraction.max_atoms", "found 150", "extraction.buffer"],
    ),
    "box larger than DFT can afford": (
        {"extraction.box_side": 16.2},
        ["extraction.max_atoms", "found 200", "256 atoms", "extraction.box_side"],
    ),
    "box too narrow after a deformation": (
        {"exploration.walkers.0.deform": {"strain": {"x": -0.2}}},
        ["exploration.walkers[0].deform", "9.72 Å wide", "10 Å", "deform less"],
    ),
    "box too narrow after the deformations of two stages": (
        {
            "exploration.walkers.0.temperatures": REMOVED,
            "exploration.walkers.0.stages": [
                {"temperature": 300, "steps": 500, "deform": {"strain": {"x": -0.1}}},
                {"temperature": [300, 600], "steps": 500, "deform": {"strain": {"xy": 2.0}}},
            ],
        },
        ["exploration.walkers[0].stages[1].deform", "9.972 Å wide", "10 Å", "deform less"],
    ),
    "MD cell without room for any box": (
        {"exploration.walkers.0.structure.supercell": [2, 2, 2], "extraction": {"mode": "box"}},
        ["exploration.walkers[0].structure", "8.1 × 8.1 × 8.1 Å", "10 Å", "supercell"],
    ),
    "MD cell smaller than the box": (
        {"exploration.walkers.0.structure.supercell": [2, 2, 2]},
        ["exploration.walkers[0].structure", "8.1 × 8.1 × 8.1 Å", "12.15 Å", "supercell"],
    ),
    "cluster thinner than the cutoff": (
        {"extraction": {"mode": "cluster", "core_radius": 3.0, "buffer": 1.0}},
        ["extraction.buffer", "1 Å", "3 Å", "5 Å"],
    ),
    "fewer environments than functions": (
        {"selection.max_structures": 3},
        ["training.basis.number_of_functions_per_element", "100 functions for Al", "about 86", "3 of 24"],
    ),
    "vacancies": (
        {"initial.structures.0.vacancies": [0, 32]},
        ["initial.structures[0].vacancies", "32", "at most 31"],
    ),
    "unknown code": (
        {"dft.code": "vaspp"},
        ["dft.code", "'vaspp'", "'vasp' was meant?", "tblite", "espresso", "ORACLES"],
    ),
    "a code of ASE that computes no forces by DFT": ({"dft.code": "morse"}, ["dft.code", "'morse'", "allowed: abinit"]),
    "a code whose package is not installed": (
        {"dft.code": "gpaw", "dft.parameters": {"mode": "pw"}},
        ["dft.code", "gpaw cannot be set up here", "No module named 'gpaw'", "docs/oracles.md"],
    ),
    "a code of whose program ASE knows nothing": (
        {"dft.code": "aims"},
        ["dft.code", "aims cannot be set up here", "No configuration of 'aims'", "docs/oracles.md"],
    ),
    "two densities in the linear solver": (
        {"training.basis.ndensity": 2, "training.basis.fs_parameters": [1, 1, 1, 0.5]},
        ["training.basis.ndensity", "found 2", "pacemaker"],
    ),
    "non-linear embedding in the linear solver": (
        {"training.basis.fs_parameters": [1.0, 0.5]},
        ["training.basis.fs_parameters", "[1.0, 0.5]", "pacemaker"],
    ),
    "temperature twice": (
        {"exploration.walkers.0.temperatures": [300, 300.0]},
        ["exploration.walkers", "2 MD runs", "md_300K"],
    ),
    "distance of a strange pair": (
        {"initial.min_distance": {"Al-Cu": 2.0}},
        ["initial.min_distance.Al-Cu", "outside system.elements (Al)"],
    ),
    "missing file": (
        {"initial.structures.0": {"file": "gone.cif", "rattles": [0.1], "count": 24, "supercell": [2, 2, 2]}},
        ["initial.structures[0].file", "gone.cif", "no such file"],
    ),
    "unreadable file": (
        {"initial.structures.0": {"file": "broken.xyz", "rattles": [0.1]}},
        ["initial.structures[0].file", "broken.xyz", "cannot read"],
    ),
    "file with a stranger": (
        {"initial.structures.0": {"file": "copper.xyz", "rattles": [0.1], "count": 24, "supercell": [2, 2, 2]}},
        ["initial.structures[0].file", "copper.xyz", "Cu", "system.elements allows Al"],
    ),
    "walker from several structures": (
        {"exploration.walkers.0.structure": {"file": "two.xyz", "index": ":", "supercell": [4, 4, 4]}},
        ["exploration.walkers[0].structure.index", "':'", "2 structures"],
    ),
}


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "broken.xyz").write_text("not a structure\n")
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", cubic=True), format="extxyz")
    ase.io.write(tmp_path / "two.xyz", [bulk("Al", cubic=True)] * 2, format="extxyz")
    return tmp_path


@pytest.mark.parametrize(("changes", "words"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_refused_with_one_message(changes, words, directory):
    errors = check(change(ALUMINIUM, changes), directory).errors
    assert len(errors) == 1, errors
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"initial.structures.0.supercell": [1, 1, 1], "initial.structures.0.count": 80}, ["5.6 × 5.6 × 5.6 Å"]),
        ({"extraction": {"mode": "cluster"}}, ["no periodic cell (cluster cut from exploration.walkers[0].structure)"]),
        ({"extraction": {"mode": "cell", "max_atoms": 216}}, ["16.8 × 16.8 × 16.8 Å (cell cut"]),
    ],
)
def test_gamma_point_code_refuses_mixed_cell_sizes(changes, words):
    content = change(SILICON, {"selection.max_structures": 80, **changes})
    errors = check(content).errors
    assert len(errors) == 1, errors
    for word in ["dft.code: tblite", "Gamma point", *words]:
        assert word in errors[0]


def test_gamma_point_code_takes_boxes_of_the_initial_size():
    changes = {
        "exploration.walkers.0.structure.supercell": [3, 3, 3],
        "extraction": {"mode": "box", "box_side": 11.2},
    }
    assert check(change(SILICON, changes)).errors == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selection.max_structures": 12}, ["12 of 24 structures", "5 times as many"]),
        ({"initial.structures.0.rattles": [0.01, 0.02]}, ["largest rattle is 0.02 Å", "900 K"]),
        ({"extraction.box_side": 13.2}, ["extraction.box_side", "13.2 Å", "12.15 × 12.15 × 12.15 Å"]),
        ({"initial.structures.0.a": 6.9}, ["initial.structures[0]", "4.88 Å", "2.42 Å", "in Å?"]),
        ({"exploration.gamma_select": 7.0}, ["exploration.gamma_select", "found 7", "uncertainty_threshold (5)"]),
    ],
)
def test_doubtful_input_is_warned_of(changes, words):
    result = check(change(ALUMINIUM, changes))
    assert result.errors == []
    assert len(result.warnings) == 1, result.warnings
    for word in words:
        assert word in result.warnings[0]


def test_a_large_shear_is_no_narrow_box():
    """LAMMPS flips the cell of a tilt above half a length."""
    assert check(change(ALUMINIUM, {"exploration.walkers.0.deform": {"strain": {"xy": 2.0}}})).errors == []


def test_all_errors_come_at_once():
    changes = {"initial.structures.0.prototype": "fcx", "dft.code": "nothing", "extraction.box_side": 5.0}
    keys = [error.split(":")[0] for error in check(change(ALUMINIUM, changes)).errors]
    assert keys == ["initial.structures[0].prototype", "dft.code", "extraction.box_side"]
