"""Kinds of initial structures beyond the distorted crystal: each from its config key, and what EMT says of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip_auto.ace import build_campaign_basis, compute_active_set, compute_gamma
from mlip_auto.check import check_campaign
from mlip_auto.config import CampaignConfig, ConfigError, parse_config
from mlip_auto.config_dft import Dft
from mlip_auto.config_initial import InitialStructures, StructureSource
from mlip_auto.distances import allowed_distances, find_nearest_distance, find_too_close
from mlip_auto.fitting import build_data_frame, fit_linear
from mlip_auto.initial import count_candidates, generate_candidates
from mlip_auto.initial_disorder import insert_atoms
from mlip_auto.initial_sources import build_source
from mlip_auto.label_checks import find_outliers
from mlip_auto.labelling import label_structures
from mlip_auto.selection import select_structures
from mlip_auto.structures import structure_id
from mlip_auto.training import build_training_set, compute_rmse, predict_labels

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "al_emt.yaml"
CU3AU = {"Cu": 0.75, "Au": 0.25}
ALLOY = {"prototype": "fcc", "a": 3.9, "composition": CU3AU, "supercell": [2, 2, 2], "rattles": [0.05]}


def make_emt(atoms: Atoms) -> EMT:
    return EMT()


def make_config(*families: dict, elements=("Cu", "Au"), **sections: object) -> CampaignConfig:
    content = yaml.safe_load(EXAMPLE.read_text())
    content["system"]["elements"] = list(elements)
    content["initial"] = {"structures": list(families)}
    content["exploration"]["walkers"][0]["structure"] |= {"formula": elements[0]}
    return parse_config(content | sections)


def generate(*families: dict, elements=("Cu", "Au")) -> list[Atoms]:
    """Candidates, whose number is the one foretold, and which come again from the same config."""
    config = make_config(*families, elements=elements)
    candidates, again = generate_candidates(config, make_emt), generate_candidates(config, make_emt)
    assert count_candidates(config) == len(candidates)
    assert [structure_id(atoms) for atoms in candidates] == [structure_id(atoms) for atoms in again]
    allowed = allowed_distances(elements)
    assert [find_too_close(atoms, allowed) for atoms in candidates] == [None] * len(candidates)
    return candidates


def count_unlike_pairs(atoms: Atoms, shell: float) -> float:
    """Fraction of Cu-Au among the pairs of atoms at the distance `shell`."""
    distances = atoms.get_all_distances(mic=True)
    near = np.abs(distances - shell) < 0.1
    unlike = atoms.numbers[:, None] != atoms.numbers[None, :]
    return (near & unlike).sum() / near.sum()


def test_sqs_has_the_pair_correlations_of_a_random_alloy(icet):
    source = StructureSource(**{key: ALLOY[key] for key in ("prototype", "a", "composition", "supercell")}, sqs=True)
    (atoms,), (again,) = (build_source(source, ["Cu", "Au"], seed=5) for _ in range(2))
    assert Counter(atoms.symbols) == {"Cu": 24, "Au": 8}
    assert atoms.cell.lengths() == pytest.approx([7.8] * 3)
    assert structure_id(atoms) == structure_id(again)
    nearest, second = 3.9 / np.sqrt(2), 3.9
    random_alloy = 2 * 0.75 * 0.25
    assert count_unlike_pairs(atoms, nearest) == pytest.approx(random_alloy, abs=0.02)
    assert count_unlike_pairs(atoms, second) == pytest.approx(random_alloy, abs=0.05)


def test_one_sqs_serves_a_family_and_a_walker_may_start_from_it(icet):
    candidates = generate({**ALLOY, "sqs": True, "count": 2})
    assert candidates[0].symbols.get_chemical_formula() == "Au8Cu24"
    assert (candidates[0].numbers == candidates[1].numbers).all()
    assert candidates[0].info["origin"] == "Au8Cu24 fcc SQS, rattle 0.05 Å"


def test_random_crystals_differ_and_keep_their_composition():
    candidates = generate({"random_crystal": {"atoms": {"Cu": 2, "Au": 2}, "spacegroups": [1, 15]}, "count": 3})
    assert {atoms.get_chemical_formula() for atoms in candidates} == {"Au2Cu2"}
    assert len({structure_id(atoms) for atoms in candidates}) == 3
    assert all(atoms.pbc.all() for atoms in candidates)


def test_a_hopeless_random_crystal_is_explained():
    no_fcc = {"random_crystal": {"atoms": {"Cu": 3}, "spacegroups": [225, 225]}}  # fcc sites come in fours
    with pytest.raises(ValueError, match=r"random_crystal.spacegroups: no space group .* from 225 to 225 takes"):
        generate_candidates(make_config(no_fcc))


@pytest.mark.parametrize(("miller", "height"), [((1, 0, 0), 3.6 / 2), ((1, 1, 1), 3.6 / np.sqrt(3))])
def test_a_surface_is_a_slab_in_vacuum(miller, height):
    source = StructureSource(
        prototype="fcc", a=3.6, supercell=(2, 2, 1), surface={"miller": miller, "layers": 3, "vacuum": 7.0}
    )
    (slab,) = build_source(source, ["Cu"])
    assert slab.pbc.tolist() == [True, True, False]
    planes = np.unique(slab.positions[:, 2].round(3))
    assert np.diff(planes) == pytest.approx([height] * (len(planes) - 1), abs=1e-3)
    assert planes[0] == pytest.approx(7.0) and slab.cell.lengths()[2] - planes[-1] == pytest.approx(7.0, abs=1e-3)


def test_interstitials_sit_in_voids_and_take_their_turn():
    family = {"prototype": "fcc", "a": 3.61, "formula": "Cu", "supercell": [2, 2, 2], "rattles": [0.02]}
    candidates = generate({**family, "interstitials": [0, 1], "count": 4, "strain": 0, "shear": 0})
    assert [len(atoms) for atoms in candidates] == [32, 33, 32, 33]
    assert "interstitial" in candidates[1].info["origin"] and "interstitial" not in candidates[0].info["origin"]
    # The guest sits in the middle of an octahedron, which is then wider than that of the crystal (a/2).
    crystal = bulk("Cu", a=3.61, cubic=True).repeat(2)
    guest = insert_atoms(crystal, ["Cu"], np.random.default_rng(1))
    distances = np.sort(guest.get_distances(-1, range(32), mic=True))
    assert distances[:6] == pytest.approx([0.85 * 2 * 1.32] * 6, abs=0.02)
    assert distances[6] > 2.9


def test_melt_frames_are_disordered_and_apart():
    crystal = {"prototype": "fcc", "a": 3.75, "formula": "Cu", "supercell": [2, 2, 2], "strain": 0, "shear": 0}
    frames = generate({**crystal, "melt": {"temperature": 4000, "steps": 300, "every": 40}, "count": 3})
    assert [atoms.info["origin"] for atoms in frames] == ["Cu32 fcc melt at 4000 K"] * 3
    perfect = bulk("Cu", a=3.75, cubic=True).repeat(2)
    for atoms in frames:
        moved = np.linalg.norm((atoms.positions - perfect.positions) @ np.linalg.inv(perfect.cell[:]) % 1, axis=1)
        assert np.sqrt((moved**2).mean()) * 7.5 > 0.15 * 3.75 / np.sqrt(2)  # well beyond Lindemann's 0.1
    assert np.abs(frames[0].positions - frames[1].positions).max() > 0.3


def test_atoms_and_dimers_are_as_they_are_told():
    candidates = generate({"isolated_atoms": {}}, {"dimers": {"distances": [2.2, 3.0], "vacuum": 5.0}})
    assert [str(atoms.symbols) for atoms in candidates] == ["Cu", "Au", *("Cu2", "Cu2", "CuAu", "CuAu", "Au2", "Au2")]
    assert not any(atoms.pbc.any() for atoms in candidates)
    assert [find_nearest_distance(atoms) for atoms in candidates[2:]] == pytest.approx([2.2, 3.0] * 3)
    assert candidates[2].cell.lengths() == pytest.approx([10.0, 10.0, 12.2])
    assert [find_nearest_distance(atoms) for atoms in candidates[:2]] == [np.inf] * 2


KINDS = [
    {"prototype": "fcc", "a": 3.6, "formula": "Cu", "surface": {"miller": [1, 1, 1]}, "rattles": [0.05], "count": 1},
    {**ALLOY, "interstitials": [1], "count": 1},
    {"isolated_atoms": {}},
    {"dimers": {"distances": [2.4]}},
]


def test_emt_labels_every_kind():
    for atoms in generate(*KINDS):
        atoms.calc = EMT()
        assert np.isfinite(atoms.get_potential_energy())
        assert np.isfinite(atoms.get_forces()).all() and np.abs(atoms.get_forces()).max() < 30


REFUSED = {
    "two sources": ({**ALLOY, "random_crystal": {"atoms": {"Cu": 2}}}, "found `prototype` and `random_crystal`"),
    "no source": ({"rattles": [0.1]}, "found no source; give either `prototype` or `file` or `random_crystal`"),
    "distorted atom": ({"isolated_atoms": {}, "strain": 0.1}, "strain: means nothing with `isolated_atoms`"),
    "counted dimers": ({"dimers": {"distances": [2.5]}, "count": 3}, "count: means nothing with `dimers`"),
    "no composition": ({"prototype": "fcc", "rattles": [0.1], "sqs": True}, "sqs: needs `composition`"),
    "stacked slabs": ({**ALLOY, "surface": {"miller": [1, 0, 0]}}, "supercell: .* would stack slabs"),
    "no plane": ({**ALLOY, "surface": {"miller": [0, 0, 0]}}, "names no plane"),
    "adatom": (
        {**ALLOY, "supercell": [2, 2, 1], "surface": {"miller": [1, 0, 0]}, "interstitials": [1]},
        "interstitials: the widest void of a slab",
    ),
    "no rattle": ({"prototype": "fcc"}, "give either `rattles`"),
}


@pytest.mark.parametrize(("family", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_family_that_makes_no_sense_is_refused(family, message):
    with pytest.raises(ConfigError, match=message):
        make_config(family)


def test_check_knows_what_each_kind_needs():
    def errors(*families: dict, **sections: object) -> list[str]:
        return check_campaign(make_config(*families, **sections)).errors

    alloy = {**ALLOY, "count": 30}
    assert errors(alloy, {"isolated_atoms": {}}, {"dimers": {"distances": [2.4]}}) == []
    (lonely,) = errors(alloy, {"dimers": {"distances": [2.4]}})
    assert "add a family `- isolated_atoms: {}`" in lonely
    (missing,) = errors({**alloy, "composition": {"Cu": 1.0}}, {"isolated_atoms": {}})
    assert "Au is in no crystal" in missing
    gamma_only = errors(alloy, {"random_crystal": {"atoms": {"Cu": 4}}}, dft={"code": "tblite"})
    assert any("random_crystal: tblite computes at the Gamma point only" in error for error in gamma_only)


def test_a_walker_starts_from_no_molecule():
    assert set(StructureSource.sources) < set(InitialStructures.sources)
    with pytest.raises(ValueError, match="extra"):
        StructureSource(isolated_atoms={})


@pytest.mark.slow
def test_selection_and_fit_bear_a_generation_of_many_kinds(tmp_path, icet):
    """Gen 0 with vacuum, voids and melts, as a campaign treats it: select, label, refuse outliers, fit, judge."""
    crystal = {"prototype": "fcc", "supercell": [2, 2, 2], "rattles": [0.05, 0.1]}
    families = [
        {**ALLOY, "count": 8, "rattles": [0.05, 0.1]},
        {**ALLOY, "count": 4, "sqs": True},
        {**crystal, "formula": "Cu", "a": 3.6, "count": 4, "interstitials": [0, 1], "vacancies": [0, 1]},
        {**crystal, "formula": "Au", "a": 4.06, "count": 4},
        {
            "prototype": "fcc",
            "formula": "Cu",
            "a": 3.6,
            "count": 2,
            "surface": {"miller": [1, 1, 1]},
            "rattles": [0.05],
        },
        {**ALLOY, "count": 3, "rattles": [], "melt": {"temperature": 3000, "steps": 100, "every": 20}},
        {"isolated_atoms": {}},
        {"dimers": {"distances": [2.4, 3.0]}},
    ]
    training = {
        "solver": "linear",
        "repulsion": "none",
        "held_out_fraction": 0.0,
        "basis": {
            "cutoff": 4.7,
            "number_of_functions_per_element": 40,
            "nradmax_by_orders": [8, 4, 2],
            "lmax_by_orders": [0, 3, 2],
        },
    }
    config = make_config(*families, training=training, selection={"max_structures": 33})
    basis = build_campaign_basis(config)
    selected = select_structures(generate_candidates(config, make_emt), basis, 33, None, set())
    assert [str(atoms.symbols) for atoms in selected[:2]] == ["Cu", "Au"]
    shard = label_structures(selected, Dft(code="emt", store=tmp_path / "store"))
    assert len(shard.labels) == len(selected)
    assert find_outliers(shard.labels, 6.0) == {}
    data = build_training_set([shard.labels], 0.0)
    assert data.reference_energies == {"Cu": pytest.approx(3.51), "Au": pytest.approx(3.8)}
    fitted = fit_linear(basis, build_data_frame(data, 4.7), config.training)
    predictions = predict_labels(fitted, data.train, data.reference_energies)
    spread = np.concatenate([atoms.get_forces() for atoms in data.train]).std()
    assert compute_rmse(predictions)["force"] < 0.3 * spread
    assert [atoms.info["predicted_energy"] for atoms in predictions[:2]] == pytest.approx([3.51, 3.8])
    gammas = compute_gamma(fitted, compute_active_set(fitted, data.train), data.train)
    assert max(gamma.max() for gamma in gammas) < 1.02 and gammas[0].tolist() == [0.0]
