"""From frames of halted MD to audited cuts: real gamma, a real potential, faces that are healed."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.units import fs

from mlip_auto.centres import CentreChooser, list_candidates, project_centres
from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.config_initial import StructureSource
from mlip_auto.cut_audit import SAME_GAMMA, audit_cut, evaluate_frame
from mlip_auto.cut_mode import find_bonding
from mlip_auto.cutting import ParentFrame
from mlip_auto.extraction import WalkerFrames, extract_cuts
from mlip_auto.extractor import FROZEN_MARGIN, EmbeddingExtractor
from mlip_auto.healing import equilibrate_shell, heal, relax_shell
from mlip_auto.neighbours import find_neighbours
from mlip_auto.structures import read_structures, structure_id, write_structures

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "al_emt.yaml"
A = 4.05  # Å, fcc Al
CORNER, MIDDLE = 0, 167  # atoms of the 4 x 4 x 4 cell that are far from each other


@pytest.fixture
def make_config(small_basis):
    def make(**extraction) -> CampaignConfig:
        content = yaml.safe_load(EXAMPLE.read_text())
        content["training"]["basis"] = small_basis.model_dump()
        content["extraction"] = {"box_side": 3 * A, "max_atoms": 300, **extraction}
        return parse_config(content)

    return make


@pytest.fixture
def make_frame(al_potential):
    """Hot aluminium with the gamma of the potential, some atoms pushed aside by so many Å."""

    def make(step: int = 10, pushed: dict[int, float] | None = None, seed: int = 0, deviation: float = 0.1) -> Atoms:
        frame = bulk("Al", "fcc", a=A, cubic=True).repeat(4)
        frame.rattle(deviation, seed=seed)
        for atom, distance in (pushed or {}).items():
            frame.positions[atom] += distance / np.sqrt(3)
        frame.set_array("gamma", al_potential.evaluate(frame).gamma)
        frame.info["step"] = step
        return frame

    return make


def halted(*frames: Atoms, name: str = "md_900K", outcome: str = "halted") -> WalkerFrames:
    return WalkerFrames(name, {"outcome": outcome, "temperature": 900.0}, frames)


def make_extractor(config: CampaignConfig, frame: Atoms) -> EmbeddingExtractor:
    return EmbeddingExtractor.from_config(config, config.exploration.walkers[0].structure, frame)


@pytest.mark.parametrize("mode", ["cluster", "box", "cell"])
def test_cuts_carry_their_provenance_and_keep_their_id_through_a_file(
    mode, tmp_path, make_config, make_frame, al_potential
):
    frame = make_frame(30, {CORNER: 0.9, MIDDLE: 0.8})
    config = make_config(mode=mode, max_clusters=2)
    cuts, refusals = extract_cuts([halted(frame, name="md_900K_c2")], al_potential, config, generation=4)
    assert refusals == []
    assert len(cuts) == (1 if mode == "cell" else 2)
    write_structures(tmp_path / "extracted.extxyz", cuts)
    for cut, read in zip(cuts, read_structures(tmp_path / "extracted.extxyz"), strict=True):
        assert read.info["structure_id"] == structure_id(read) == structure_id(cut)
        assert read.info["config_type"] == "active_learning"
        assert read.info["generation"] == 4
        assert read.info["walker"] == "md_900K_c2"
        assert read.info["cut_mode"] == mode
        assert mode in read.info["mode_reason"]
        assert read.info["composition_change"] == "none"
        center = read.info["center_atom_index"]
        assert read.arrays["parent_index"][center] == read.info["parent_center"]
        assert f"step 30, atom {read.info['parent_center']}" in read.info["origin"]
        assert read.arrays["gamma"][center] == pytest.approx(read.info["gamma"], rel=1e-6)
        assert read.arrays["cut_gamma"][center] == pytest.approx(read.info["gamma"], rel=SAME_GAMMA)
        assert read.info["audit_force_change"] == pytest.approx(read.arrays["force_change"].max(), abs=1e-6)
        np.testing.assert_array_equal(read.arrays["force_mask"], cut.arrays["force_mask"])


@pytest.mark.parametrize("mode", ["cluster", "box"])
def test_each_core_atom_can_be_shown_in_its_frame(mode, make_config, make_frame, al_potential):
    frame = make_frame(pushed={CORNER: 0.9})
    config = make_config(mode=mode, trained_radius=4.5)
    (cut, *_), _ = extract_cuts([halted(frame)], al_potential, config, generation=1)
    core = np.flatnonzero(cut.arrays["force_mask"])
    assert 12 < len(core) < len(cut)
    assert cut.info["energy_weight"] == 0
    center, parents = cut.info["center_atom_index"], cut.arrays["parent_index"]
    in_cut = cut.get_distances(center, core, mic=True, vector=True)
    in_frame = frame.get_distances(cut.info["parent_center"], parents[core], mic=True, vector=True)
    np.testing.assert_allclose(in_cut, in_frame, atol=1e-8)


def run_hot_md(temperature: float) -> Atoms:
    """A frame of EMT's own MD: unlike those of rattled atoms, its displacements are no strangers to each other."""
    rng = np.random.default_rng(0)
    atoms = bulk("Al", "fcc", a=A, cubic=True).repeat(4)
    atoms.calc = EMT()
    thermalize_momenta(atoms, temperature_K=2 * temperature, rng=rng)
    Langevin(atoms, 4 * fs, temperature_K=temperature, friction=0.02 / fs, rng=rng, fixcm=False).run(40)
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def test_healed_box_has_known_faces_and_its_core_is_untouched(make_config, al_potential):
    frame = run_hot_md(1200)
    frame.set_array("gamma", al_potential.evaluate(frame).gamma)
    center = int(np.argmax(frame.arrays["gamma"]))
    extractor = make_extractor(make_config(mode="box"), frame)
    audit = partial(
        audit_cut,
        reference=evaluate_frame(ParentFrame(frame), center, extractor.core_radius, al_potential),
        potential=al_potential,
        allowed=extractor.allowed,
        threshold=5.0,
        max_force_change=10.0,
    )
    raw = extractor.extract_cluster(frame, center)
    conditions = {"temperature": 1200.0, "timestep": 2.0, "seed": (1,)}
    cut, found = heal(raw, al_potential, extractor.frozen_radius, audit, **conditions)
    assert audit(raw).boundary_above > 10
    assert audit(raw).boundary_gamma > 50
    assert found.boundary_above == 0
    assert found.problems == ()
    assert found.gamma_center == pytest.approx(frame.arrays["gamma"][center], rel=1e-6)
    moved = np.linalg.norm(cut.atoms.positions - raw.atoms.positions, axis=1)
    shell = np.linalg.norm(raw.vectors(), axis=1) >= extractor.cutoff + FROZEN_MARGIN
    assert moved[~shell].max() == 0
    assert 0.1 < moved[shell].max() < 3
    np.testing.assert_array_equal(cut.atoms.arrays["parent_index"], raw.atoms.arrays["parent_index"])


def test_a_shell_that_is_trained_on_has_the_forces_of_the_frame(make_config, al_potential):
    """By EMT: a relaxed one is cold, and teaches small displacements only."""
    frame = run_hot_md(1200)
    frame.set_array("gamma", al_potential.evaluate(frame).gamma)
    extractor = make_extractor(make_config(mode="box"), frame)
    cut = extractor.extract_cluster(frame, MIDDLE)
    shell = np.linalg.norm(cut.vectors(), axis=1) >= extractor.frozen_radius
    for _ in range(4):
        cut = relax_shell(cut, al_potential, shell)
    warm = equilibrate_shell(cut, al_potential, shell, temperature=1200, timestep=2.0, seed=(1,))

    def rms_force(atoms: Atoms, chosen: np.ndarray | slice) -> float:
        atoms = atoms.copy()
        atoms.calc = EMT()
        return float(np.sqrt((atoms.get_forces()[chosen] ** 2).mean()))

    wanted = rms_force(frame, slice(None))
    assert rms_force(cut.atoms, shell) < 0.6 * wanted
    assert rms_force(warm.atoms, shell) == pytest.approx(wanted, rel=0.3)
    again = equilibrate_shell(cut, al_potential, shell, temperature=1200, timestep=2.0, seed=(1,))
    np.testing.assert_array_equal(again.atoms.positions, warm.atoms.positions)


def test_a_box_that_looks_known_is_left_as_it_is(make_config, make_frame, al_potential):
    """Where its shell is not trained on."""
    frame = make_frame(pushed={CORNER: 0.9}, deviation=0.02)
    config = make_config(mode="box", trained_radius=4.5)
    (cut, *_), _ = extract_cuts([halted(frame)], al_potential, config, generation=1)
    raw = make_extractor(config, frame).extract_cluster(frame, cut.info["parent_center"])
    np.testing.assert_array_equal(cut.positions, raw.atoms.positions)


def test_audit_sees_a_moved_neighbour(make_config, make_frame, al_potential):
    frame = make_frame(pushed={CORNER: 0.5})
    extractor = make_extractor(make_config(mode="box"), frame)
    cut = extractor.extract_cluster(frame, CORNER)
    neighbour = find_neighbours(cut.atoms, cut.center_atom_index, 3.5)[0][0]
    cut.atoms.positions[neighbour] += [0.3, 0, 0]
    reference = evaluate_frame(ParentFrame(frame), CORNER, extractor.core_radius, al_potential)
    audit = audit_cut(cut, reference, al_potential, extractor.allowed, threshold=5.0, max_force_change=0.05)
    assert len(audit.problems) == 3
    for words, problem in zip(
        ["1 of 21 core atoms", "gamma of the centre", "extraction.max_force_change allows 0.05"],
        sorted(audit.problems, key=lambda text: (text[0] != "1", text)),
        strict=True,
    ):
        assert words in problem


def test_relaxing_lowers_the_energy_of_the_shell_alone(make_config, make_frame, al_potential):
    frame = make_frame(deviation=0.15)
    extractor = make_extractor(make_config(mode="box"), frame)
    cut = extractor.extract_cluster(frame, MIDDLE)
    shell = np.linalg.norm(cut.vectors(), axis=1) >= extractor.frozen_radius
    healed = relax_shell(cut, al_potential, shell)
    energies = []
    for atoms in (cut.atoms.copy(), healed.atoms.copy()):
        atoms.calc = al_potential.calculator
        energies.append(atoms.get_potential_energy())
    assert energies[1] < energies[0] - 0.5
    assert not healed.atoms.constraints


def test_cut_that_fails_its_audit_is_enlarged_and_refused_when_it_cannot_grow(make_config, make_frame, al_potential):
    frame = make_frame(pushed={CORNER: 0.9}, deviation=0.12)
    small = {"mode": "box", "max_force_change": 0.02, "max_clusters": 1, "box_side": None}
    (cut, *_), _ = extract_cuts([halted(frame)], al_potential, make_config(**small), generation=1)
    assert len(cut) == 256  # the smallest box, of 3 crystal cells, changes forces by more
    assert cut.info["audit_force_change"] <= 0.02
    cuts, refusals = extract_cuts([halted(frame)], al_potential, make_config(**small | {"max_atoms": 200}), 1)
    assert cuts == []
    for words in ("box of 108 atoms: the model's force", "box has 256 atoms; extraction.max_atoms allows 200"):
        assert words in refusals[0]


def test_sites_of_all_walkers_are_chosen_together(make_config, make_frame, al_potential):
    """The same frame met by two walkers is one question; another frame is another."""
    frame, other = make_frame(50, {CORNER: 0.9}), make_frame(70, {CORNER: 0.9, MIDDLE: 0.8}, seed=3)
    walkers = [halted(frame), halted(frame.copy(), name="md_300K")]
    cuts, _ = extract_cuts(walkers, al_potential, make_config(mode="cluster"), generation=0)
    alone, _ = extract_cuts(walkers[:1], al_potential, make_config(mode="cluster"), generation=0)
    assert [cut.info["structure_id"] for cut in cuts] == [cut.info["structure_id"] for cut in alone]
    walkers[1] = halted(other, name="md_300K")
    cuts, _ = extract_cuts(walkers, al_potential, make_config(mode="cluster", max_clusters=2), generation=0)
    assert [cut.info["walker"] for cut in cuts[:2]] == ["md_900K", "md_300K"]  # the halting atoms come first
    assert {cut.info["parent_center"] for cut in cuts if cut.info["step"] == 70} == {CORNER, MIDDLE}


def test_near_duplicates_are_dropped_by_descriptor(make_config, make_frame, al_potential):
    first = make_frame(40, {CORNER: 0.9})
    later = first.copy()
    later.rattle(0.002, seed=9)
    later.info["step"] = 50
    later.set_array("gamma", al_potential.evaluate(later).gamma)
    assert structure_id(first) != structure_id(later)
    cuts, _ = extract_cuts([halted(first, later)], al_potential, make_config(mode="cluster"), generation=0)
    assert [cut.info["parent_center"] for cut in cuts].count(CORNER) == 1


def test_a_chosen_centre_becomes_a_row_of_the_active_set(make_frame, al_potential):
    frame = ParentFrame(make_frame(pushed={CORNER: 0.9, MIDDLE: 0.8}))
    candidates = list_candidates("md", [frame], gamma_select=2.0, cutoff=al_potential.cutoff, limit=10)
    assert len(candidates) > 1
    chooser = CentreChooser(candidates, al_potential, gamma_select=2.0, per_walker=5, min_distance=0.1)
    first = chooser.best()
    assert first is candidates[0]
    _, row = project_centres(candidates, al_potential)[first]
    rows = np.linalg.inv(al_potential.active_set[0])
    replaced = np.argmax(np.abs(row @ al_potential.active_set[0]))
    assert np.abs(row @ al_potential.active_set[0]).max() == pytest.approx(first.gamma, rel=1e-6)
    chooser.accept(first)
    rows[replaced] = row
    np.testing.assert_allclose(chooser.active_set[0] @ rows, np.eye(len(rows)), atol=1e-6)
    assert chooser.best() is not first


def test_at_most_max_clusters_of_a_walker_and_one_cell_of_a_frame(make_config, make_frame, al_potential):
    frame = make_frame(pushed=dict.fromkeys(range(0, 256, 40), 0.9))
    walkers = [halted(frame, outcome="crashed")]
    for number in (1, 3):
        cuts, _ = extract_cuts(walkers, al_potential, make_config(mode="box", max_clusters=number), 0)
        assert len(cuts) == number
    cuts, _ = extract_cuts(walkers, al_potential, make_config(mode="cell"), 0)
    assert len(cuts) == 1


def test_refused_cuts_are_said_and_the_next_centre_is_taken(make_config, make_frame, al_potential):
    frame = make_frame(70, {MIDDLE: 0.8}, deviation=0.05)
    neighbour = int(find_neighbours(frame, CORNER, 3.3)[0][0])
    frame.positions[neighbour] = frame.positions[CORNER] + [1.0, 0, 0]
    frame.set_array("gamma", al_potential.evaluate(frame).gamma)
    halting = int(np.argmax(frame.arrays["gamma"]))
    walker = halted(frame, name="md_300K", outcome="crashed")
    cuts, refusals = extract_cuts([walker], al_potential, make_config(mode="cluster", buffer=1.0), 1)
    assert MIDDLE in [cut.info["parent_center"] for cut in cuts]
    assert f"md_300K, step 70, atom {halting}, gamma" in refusals[0]
    assert "1.00 Å apart" in refusals[0]


def test_frames_that_are_no_numbers_are_left_out(make_config, make_frame, al_potential):
    good, bad = make_frame(10, {MIDDLE: 0.9}), make_frame(20)
    bad.positions[:] = np.nan
    walker = halted(good, bad, name="md_300K", outcome="crashed")
    cuts, refusals = extract_cuts([walker], al_potential, make_config(mode="cell"), 0)
    assert [cut.info["step"] for cut in cuts] == [10]
    assert len(refusals) == 1


def test_completed_walker_is_not_cut(make_config, make_frame, al_potential):
    walker = halted(make_frame(1000, {MIDDLE: 0.9}), outcome="completed")
    assert extract_cuts([walker], al_potential, make_config(mode="cell"), 0) == ([], [])


@pytest.mark.parametrize(
    ("settings", "pbc", "mode", "reason"),
    [
        ({}, True, "cell", "256 atoms are no more than extraction.max_atoms (300)"),
        ({"max_atoms": 200}, True, "box", "bonding is metallic"),
        ({"max_atoms": 200}, (True, True, False), "cluster", "not periodic in all directions"),
        ({"max_atoms": 100}, True, "cluster", "so would be its box of 108 atoms"),
        ({"max_atoms": 200, "bonding": "molecular"}, True, "cluster", "whole molecules"),
        ({"max_atoms": 200, "mode": "cluster"}, True, "cluster", "extraction.mode: cluster"),
    ],
)
def test_auto_chooses_and_says_why(settings, pbc, mode, reason, make_config):
    frame = bulk("Al", "fcc", a=A, cubic=True).repeat(4)
    frame.pbc = pbc
    extractor = make_extractor(make_config(**{"mode": "auto", **settings}), frame)
    assert extractor.mode == mode
    assert reason in extractor.mode_reason


@pytest.mark.parametrize(
    ("mode", "settings", "dft", "trained", "energy_weight"),
    [
        ("box", {}, {"code": "emt"}, 108, 1),
        ("box", {"trained_radius": 3.5}, {"code": "emt"}, 13, 0),
        ("box", {}, {"code": "tblite", "parameters": {"method": "GFN1-xTB"}}, 19, 0),  # Gamma point: the core
        ("cluster", {}, {"code": "emt"}, 13, 0),  # to 1.1 cutoffs below the surface
        ("cluster", {"buffer": 10.0, "max_atoms": 1000}, {"code": "emt"}, 19, 0),  # the core
        ("cell", {}, {"code": "emt"}, 256, 1),
    ],
)
def test_what_is_trained_on_by_default(mode, settings, dft, trained, energy_weight, make_config):
    frame = bulk("Al", "fcc", a=A, cubic=True).repeat(4)
    config = make_config(mode=mode, **settings)
    config = parse_config(config.model_dump() | {"dft": dft})
    cut = make_extractor(config, frame).extract_cluster(frame, MIDDLE)
    assert cut.force_mask.sum() == trained
    assert cut.atoms.info["energy_weight"] == energy_weight


def test_default_cluster_of_a_metal_is_affordable():
    """No more than the default of max_atoms, and its first shell is trained on."""
    config = parse_config(yaml.safe_load(EXAMPLE.read_text()) | {"extraction": {"mode": "cluster"}})
    frame = bulk("Al", "fcc", a=A, cubic=True).repeat(4)
    frame.rattle(0.1, seed=0)
    cut = make_extractor(config, frame).extract_cluster(frame, MIDDLE)
    assert 170 < len(cut.atoms) <= config.extraction.max_atoms == 200
    assert cut.force_mask.sum() == 13


@pytest.mark.parametrize(
    ("elements", "bonding"),
    [("Al Cu", "metallic"), ("Si", "covalent"), ("Ga As", "covalent"), ("Na Cl", "ionic"), ("Si O", "covalent")],
)
def test_bonding_is_guessed_by_the_elements(elements, bonding, make_config):
    assert find_bonding(make_config().extraction, elements.split()) == bonding


def test_default_box_holds_the_frozen_core(make_config):
    frame = bulk("Al", "fcc", a=A, cubic=True).repeat(6)
    source = StructureSource(prototype="fcc", supercell=(6, 6, 6))
    config = make_config(mode="box", box_side=None)
    extractor = EmbeddingExtractor.from_config(config, source, frame)
    side = 6 * A * extractor.box.fractions[0]
    assert side - A < 2 * extractor.frozen_radius <= side
