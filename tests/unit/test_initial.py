"""Generation 0 against what its config asks for."""

from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import kB

from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.config_initial import StructureSource
from mlip_auto.distances import allowed_distances, find_too_close
from mlip_auto.initial import count_candidates, generate_candidates
from mlip_auto.initial_disorder import thermal_displacements
from mlip_auto.initial_sources import PROTOTYPES, build_source
from mlip_auto.structures import structure_id

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "al_emt.yaml"
FAMILY = {"prototype": "fcc", "a": 4.05, "supercell": [2, 2, 2], "count": 4, "rattles": [0.1], "strain": 0, "shear": 0}


def make_emt(atoms: Atoms) -> EMT:
    return EMT()


def make_config(*families: dict, elements=("Al",), **initial) -> CampaignConfig:
    content = yaml.safe_load(EXAMPLE.read_text())
    content["system"]["elements"] = list(elements)
    content["initial"] = {"structures": [{**FAMILY, **family} for family in families], **initial}
    return parse_config(content)


def displacements(atoms: Atoms, crystal: Atoms) -> np.ndarray:
    return atoms.positions - crystal.positions


@pytest.mark.parametrize("prototype", PROTOTYPES)
def test_each_prototype_is_built(prototype):
    formula = {
        "zincblende": "GaAs",
        "rocksalt": "NaCl",
        "cesiumchloride": "CsCl",
        "wurtzite": "ZnO",
        "fluorite": "CaF2",
    }
    source = StructureSource(prototype=prototype, formula=formula.get(prototype, "Cu"), a=5.0, supercell=(2, 1, 1))
    elements = ["Cu", "Ga", "As", "Na", "Cl", "Cs", "Zn", "O", "Ca", "F"]
    (atoms,) = build_source(source, elements)
    assert atoms.pbc.all()
    assert atoms.cell.lengths()[0] == pytest.approx(10.0)
    assert len(atoms) % 2 == 0


def test_prototype_takes_the_only_element_and_ases_lattice_constant():
    (atoms,) = build_source(StructureSource(prototype="diamond", supercell=(2, 2, 2)), ["Si"])
    assert atoms.get_chemical_formula() == "Si64"
    assert atoms.cell.lengths() == pytest.approx([2 * 5.43] * 3)


def test_candidates_are_reproducible_and_all_different():
    config = make_config({"count": 6}, {"count": 3, "vacancies": [1]})
    first, second = generate_candidates(config), generate_candidates(config)
    ids = [structure_id(atoms) for atoms in first]
    assert ids == [structure_id(atoms) for atoms in second]
    assert len(set(ids)) == len(ids) == count_candidates(config) == 9
    other_seed = config.model_copy(update={"seed": config.seed + 1})
    assert not set(ids) & {structure_id(atoms) for atoms in generate_candidates(other_seed)}


def test_a_longer_family_keeps_its_first_structures():
    short, long = (generate_candidates(make_config({"count": count})) for count in (3, 5))
    assert [structure_id(atoms) for atoms in long[:3]] == [structure_id(atoms) for atoms in short]


def test_candidates_say_where_they_come_from():
    atoms = generate_candidates(make_config({"count": 1, "vacancies": [2]}))[0]
    assert atoms.info == {
        "config_type": "initial",
        "generation": 0,
        "origin": "Al32 fcc, rattle 0.1 Å, 2 vacancies",
        "family": 0,
        "energy_weight": 1.0,
    }
    assert atoms.arrays["force_mask"].tolist() == [1] * 30


def test_rattles_and_vacancies_take_turns_in_every_combination():
    candidates = generate_candidates(make_config({"count": 4, "rattles": [0.02, 0.2], "vacancies": [0, 1]}))
    assert [len(atoms) for atoms in candidates] == [32, 32, 31, 31]
    crystal = bulk("Al", a=4.05, cubic=True).repeat(2)
    deviations = [displacements(atoms, crystal).std() for atoms in candidates[:2]]
    assert deviations == pytest.approx([0.02, 0.2], rel=0.25)  # 96 normal numbers: their deviation is known to 7 %


def test_strains_fill_their_range_and_no_more():
    config = make_config({"count": 200, "rattles": [0.0], "strain": 0.04, "shear": 0.02})
    crystal = bulk("Al", a=4.05, cubic=True).repeat(2)
    deformations = np.array([crystal.cell.reciprocal() @ atoms.cell[:] for atoms in generate_candidates(config)])
    volumetric = np.trace(deformations, axis1=1, axis2=2) / 3 - 1
    shears = deformations[:, [0, 0, 1], [1, 2, 2]]
    np.testing.assert_allclose(deformations, np.swapaxes(deformations, 1, 2), atol=1e-12)
    assert 0.035 < np.abs(volumetric).max() <= 0.04
    assert 0.0175 < np.abs(shears).max() <= 0.02
    assert abs(volumetric.mean()) < 0.01


def test_structures_too_close_are_drawn_anew():
    family = {"count": 10, "rattles": [0.15]}
    allowed = allowed_distances(["Al"], {"Al-Al": 2.2})
    free, guarded = (
        [find_too_close(atoms, allowed) for atoms in generate_candidates(make_config(family, min_distance=limit))]
        for limit in ({}, {"Al-Al": 2.2})
    )
    assert any(pair is not None for pair in free)
    assert guarded == [None] * 10


def test_hopeless_distortion_names_the_key_and_the_cure():
    config = make_config({}, {"rattles": [1.5]})
    with pytest.raises(ValueError, match=r"initial\.structures\[1\]\.rattles.*1\.5 Å.*Al-Al.*lower `rattles`"):
        generate_candidates(config)


def test_random_alloy_has_its_composition_and_a_new_order_each_time():
    config = make_config({"composition": {"Cu": 0.7, "Au": 0.3}, "a": 3.9}, elements=["Cu", "Au"])
    candidates = generate_candidates(config)
    # 0.7 * 32 = 22.4 and 0.3 * 32 = 9.6: the larger remainder gets the last atom.
    assert [Counter(atoms.symbols) for atoms in candidates] == [Counter(Cu=22, Au=10)] * 4
    assert len({atoms.numbers.tobytes() for atoms in candidates}) == 4


def test_files_give_all_structures_that_the_index_picks(tmp_path):
    structures = [bulk("Al", a=a, cubic=True) for a in (3.9, 4.0, 4.1)]
    structures[0].info["energy"] = -1.0
    ase.io.write(tmp_path / "crystals.extxyz", structures)
    family = {"prototype": None, "a": None, "file": "crystals.extxyz", "index": "1:", "count": 2, "rattles": [0.0]}
    config = make_config(family)
    candidates = generate_candidates(config, directory=tmp_path)
    assert len(candidates) == count_candidates(config, tmp_path) == 4
    assert [atoms.cell.lengths()[0] for atoms in candidates] == pytest.approx([8.0, 8.0, 8.2, 8.2])
    assert candidates[0].info["origin"] == "Al32 crystals.extxyz, rattle 0 Å"


def test_thermal_displacement_follows_from_the_force_constant():
    crystal = bulk("Al", a=4.05, cubic=True).repeat(2)
    (force,) = [displaced_force(crystal, 0.01)]
    stiffness = -force / 0.01
    found = thermal_displacements([crystal], 300.0, make_emt)
    assert found == {"Al": pytest.approx(np.sqrt(3 * kB * 300.0 / stiffness), rel=0.01)}


def displaced_force(crystal: Atoms, step: float) -> float:
    """Force along x of an atom moved along x: the cubic site is as stiff along x as along the diagonal."""
    displaced = crystal.copy()
    displaced.positions[0, 0] += step
    displaced.calc = EMT()
    return displaced.get_forces()[0, 0]


def test_thermal_displacement_is_capped_and_differs_by_element():
    crystal = bulk("NiAl", "cesiumchloride", a=2.89, cubic=True).repeat(3)
    cool, hot = (thermal_displacements([crystal], temperature, make_emt) for temperature in (100.0, 1e5))
    assert cool["Al"] != pytest.approx(cool["Ni"], rel=0.01)
    assert hot == pytest.approx(dict.fromkeys(("Al", "Ni"), 0.1 * 2.89 * np.sqrt(3) / 2))


def test_rattle_temperature_rattles_by_the_thermal_displacement():
    config = make_config({"count": 8, "rattles": [], "rattle_temperature": 300.0})
    crystal = bulk("Al", a=4.05, cubic=True).repeat(2)
    expected = thermal_displacements([crystal], 300.0, make_emt)["Al"]
    squared = [
        (displacements(atoms, crystal) ** 2).sum(axis=1)
        for atoms in generate_candidates(config, make_calculator=make_emt)
    ]
    assert np.sqrt(np.mean(squared)) == pytest.approx(expected, rel=0.1)
    with pytest.raises(ValueError, match="rattle_temperature: needs the oracle"):
        generate_candidates(config)
