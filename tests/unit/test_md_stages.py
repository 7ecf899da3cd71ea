"""Real MD under each kind of conditions, through stages, from each kind of start; which frames are kept of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, fcc111
from ase.geometry import find_mic
from pyace.asecalc import PyACECalculator

from mlip_auto.config import parse_config
from mlip_auto.exploration import extract_generation, run_walker
from mlip_auto.lammps_input import InferenceConfig, write_input
from mlip_auto.lammps_output import read_candidate_frames, read_last_frames, read_thermo, truncate_dump
from mlip_auto.md import LammpsRunner
from mlip_auto.paths import WalkerPaths
from mlip_auto.structures import write_structures

NATIVE = Path(__file__).parents[1] / "data" / "native_pace"
POTENTIAL, ACTIVE_SET = NATIVE / "potential.yaml", NATIVE / "potential.asi"
CONFIG = Path(__file__).parents[1] / "workflow" / "tiny.yaml"
ANY_GAMMA = 1e9


def run_stages(directory: Path, *stages: dict, atoms: Atoms | None = None, **settings) -> tuple[dict, WalkerPaths]:
    """Run MD of 32 Al atoms (or of `atoms`); its outcome and its files."""
    paths = WalkerPaths(directory / "md")
    settings = {"timestep": 2.0, "uncertainty_threshold": ANY_GAMMA, "seed": 3} | settings
    atoms = atoms or bulk("Al", a=4.05, cubic=True) * (2, 2, 2)
    inference = InferenceConfig(stages=stages, **settings)
    return LammpsRunner().run_md(atoms, POTENTIAL, ACTIVE_SET, inference, paths, directory / "work"), paths


def check_last_frame(paths: WalkerPaths, deformed: np.ndarray | None = None) -> np.ndarray:
    """Energy and gamma of the last frame are python-ace's own, whatever became of the cell; the cell, rows in Å.

    `deformed` is what `fix deform` has added to the cell in the last step: LAMMPS does that after its forces.
    """
    frame = read_last_frames(paths.dump)[0]
    cell = frame.cell[:].copy()
    if deformed is not None:
        frame.set_cell(cell - deformed, scale_atoms=True)
    frame.calc = PyACECalculator(str(POTENTIAL))
    frame.calc.set_active_set(str(ACTIVE_SET))
    energy = read_thermo(paths.log).loc[frame.info["step"], "PotEng"]
    assert energy == pytest.approx(frame.get_potential_energy(), rel=1e-6)
    assert frame.arrays["gamma"] == pytest.approx(frame.calc.results["gamma"], rel=1e-4)
    return cell


def test_barostats_move_what_they_are_asked_to_move(tmp_path):
    """From a sheared, uneven cell: iso keeps the shape, aniso moves each length, tri the tilts too."""
    cell = np.array([[8.1, 0, 0], [0.6, 8.3, 0], [-0.4, 0.3, 7.9]])
    atoms = bulk("Al", a=4.05, cubic=True) * (2, 2, 2)
    atoms.set_cell(cell, scale_atoms=True)
    ended = {}
    for barostat in ("iso", "aniso", "tri"):
        stage = {"temperature": 300, "pressure": 2e4, "barostat": barostat, "steps": 100}
        outcome, paths = run_stages(tmp_path / barostat, stage, atoms=atoms)
        assert (outcome["outcome"], outcome["pressure"]) == ("completed", 2e4)
        assert outcome["conditions"] == f"300 K, 20000 bar ({barostat})"
        ended[barostat] = check_last_frame(paths) / cell.diagonal()[:, None]
    growth = {barostat: end.diagonal() for barostat, end in ended.items()}
    assert np.ptp(growth["iso"]) < 1e-6 < abs(growth["iso"][0] - 1)
    assert np.ptp(growth["aniso"]) > 1e-4
    tilts = [(1, 0), (2, 0), (2, 1)]
    for row, column in tilts:
        start = cell[row, column] / cell[column, column]
        shapes = {barostat: end[row, column] / end[column, column] for barostat, end in ended.items()}
        assert shapes["iso"] == pytest.approx(ended["iso"][row, column] / ended["iso"][column, column])
        assert abs(ended["tri"][row, column] * cell[row, row] - cell[row, column]) > 1e-3, start


@pytest.mark.parametrize(
    ("deform", "strains", "last_step"),
    [
        ({"strain": {"x": -0.08, "yz": 0.1}}, {(0, 0): -0.08, (2, 1): 0.1}, {(0, 0): -0.08 / 200, (2, 1): 0.1 / 200}),
        (
            {"engineering_rate": {"z": 0.1}, "true_rate": {"y": -0.2}},
            {(2, 2): 0.04, (1, 1): np.expm1(-0.08)},
            {(2, 2): 0.04 / 200, (1, 1): np.exp(-0.08) - np.exp(-0.0796)},
        ),
        ({"strain": {"xy": 0.6}}, {(1, 0): -0.4}, {(1, 0): 0.6 / 200}),
    ],
    ids=["compression and shear", "rates", "shear beyond the flip of the cell"],
)
def test_deformation_reaches_its_strain(tmp_path, deform, strains, last_step):
    """0.4 ps from a cube of 8.1 Å; LAMMPS turns a tilt of 0.6 into the equal one of -0.4."""
    outcome, paths = run_stages(tmp_path, {"temperature": 300, "steps": 200, "deform": deform})
    assert outcome["outcome"] == "completed", outcome["reason"]
    expected, deformed = np.eye(3), np.zeros((3, 3))
    for place, strain in strains.items():
        expected[place] += strain
        deformed[place] = 8.1 * last_step[place]
    assert check_last_frame(paths, deformed) / 8.1 == pytest.approx(expected, abs=1e-6)


def test_shear_under_a_barostat_of_the_lengths(tmp_path):
    stage = {"temperature": 300, "pressure": 0, "steps": 50, "deform": {"strain": {"xy": 0.1}}}
    _, paths = run_stages(tmp_path, stage)
    deformed = np.zeros((3, 3))
    deformed[1, 0] = 0.81 / 50
    cell = check_last_frame(paths, deformed)
    assert np.ptp(cell.diagonal()) < 1e-6 < abs(cell[0, 0] - 8.1)
    assert cell[1, 0] == pytest.approx(0.81, abs=1e-6)


def test_thermostat_follows_a_ramp(tmp_path):
    outcome, paths = run_stages(tmp_path, {"temperature": [300, 3000], "steps": 1500})
    temperature = read_thermo(paths.log)["Temp"]
    assert outcome["temperature"] == 3000
    assert temperature.loc[1200:].mean() == pytest.approx(2730, rel=0.4)
    assert temperature.loc[300:600].mean() < temperature.loc[1200:].mean() / 2


QUENCH = [
    {"temperature": 300, "steps": 40},
    {"temperature": [300, 600], "steps": 100, "deform": {"strain": {"x": -0.2}}},
    {"temperature": 300, "pressure": 0, "barostat": "tri", "steps": 60},
]


def test_all_stages_are_one_run(tmp_path):
    outcome, paths = run_stages(tmp_path, *QUENCH)
    assert (outcome["outcome"], outcome["step"], outcome["steps"], outcome["stage"]) == ("completed", 200, 200, 3)
    assert (outcome["temperature"], outcome["pressure"]) == (300, 0)
    assert outcome["time_ps"] == pytest.approx(0.4)
    assert outcome["conditions"] == "300 K, fixed cell; then 300 to 600 K, x deformed; then 300 K, 0 bar (tri)"
    thermo = read_thermo(paths.log)
    assert list(thermo.index) == list(range(0, 201, 10))
    volume = thermo["Volume"] / 8.1**3
    assert volume.loc[:40].to_numpy() == pytest.approx(1)
    assert volume.loc[90] == pytest.approx(0.9)
    assert volume.loc[140] == pytest.approx(0.8)
    assert volume.loc[200] > 0.81
    assert abs(check_last_frame(paths)[1, 0]) > 1e-4


def test_a_halt_in_a_stage_ends_the_sequence(tmp_path):
    """Its frame is kept, and nothing runs after it."""
    gammas = read_thermo(run_stages(tmp_path / "whole", *QUENCH)[1].log)["v_gamma_max"]
    threshold = float(gammas.loc[:40].max() + 1e-6)
    assert gammas.loc[50:140].max() > threshold
    outcome, paths = run_stages(tmp_path, *QUENCH, uncertainty_threshold=threshold)
    assert (outcome["outcome"], outcome["steps"], outcome["stage"]) == ("halted", 200, 2)
    assert 40 < outcome["step"] <= 140
    assert outcome["temperature"] == pytest.approx(300 + 3 * (outcome["step"] - 40))
    assert read_thermo(paths.log).index[-1] == outcome["step"]
    last = read_last_frames(paths.dump)[0]
    assert last.info["step"] == outcome["step"]
    assert last.arrays["gamma"].max() > threshold


def test_a_stage_goes_on_from_a_restart_file_as_if_undisturbed(tmp_path):
    """From the middle of the deformation, whose start lies before the restart file, and on into the next stage."""
    whole, resumed = WalkerPaths(tmp_path / "whole"), WalkerPaths(tmp_path / "resumed")
    inference = InferenceConfig(
        stages=QUENCH, timestep=2.0, uncertainty_threshold=ANY_GAMMA, restart_every=90, seed=3, dump_every=10
    )
    write_input(whole, bulk("Al", a=4.05, cubic=True) * (2, 2, 2), POTENTIAL, ACTIVE_SET, inference)
    engine = [sys.executable, "-m", "mlip_auto.lammps_library", "-in", "in.lammps"]
    subprocess.run(engine, cwd=whole.directory, check=True)
    shutil.copytree(whole.directory, resumed.directory)
    truncate_dump(resumed.dump, 90)
    subprocess.run([*engine, "-var", "resume", "restart.a"], cwd=resumed.directory, check=True)
    assert list(read_thermo(resumed.log).index) == list(range(90, 201, 10))
    for frame, other in zip(read_last_frames(resumed.dump, 99), read_last_frames(whole.dump, 99), strict=True):
        # LAMMPS deforms after its forces; a restart computes them anew, a step of the strain later.
        deformed = frame.info["step"] <= 140
        np.testing.assert_allclose(frame.cell[:], other.cell[:], rtol=0, atol=1e-9 if deformed else 1e-4)
        _, moved = find_mic(frame.positions - other.positions, frame.cell)
        assert moved.max() < 1e-3


@pytest.mark.parametrize("axis", ["z", "xz"])
def test_an_open_direction_is_not_deformed(tmp_path, axis):
    slab = fcc111("Al", (3, 3, 4), a=4.05, vacuum=None)
    slab.pbc = (True, True, False)
    with pytest.raises(ValueError, match=f"deform: found {axis} for a structure with pbc .* periodic vectors only"):
        run_stages(tmp_path, {"temperature": 300, "steps": 10, "deform": {"strain": {axis: 0.1}}}, atoms=slab)


def test_frames_kept_are_candidates_some_to_view_and_the_last(tmp_path):
    stages = [{"temperature": 900, "steps": 400}]
    gammas = read_thermo(run_stages(tmp_path / "whole", *stages)[1].log)["v_gamma_max"]
    select = float(np.quantile(gammas, 0.7))
    _, paths = run_stages(tmp_path, *stages, gamma_select=select, dump_every=150)
    frames = read_last_frames(paths.dump, 99)
    above = set(gammas.index[gammas > select])
    assert 5 < len(above - {380, 390, 400}) < 20
    assert [frame.info["step"] for frame in frames] == sorted(above | {0, 150, 300, 380, 390, 400})
    assert not list(paths.directory.glob("latest*"))

    chosen = [frame.info["step"] for frame in read_candidate_frames(paths, select, 6)]
    assert len(chosen) == 6
    assert chosen[-3:] == [380, 390, 400]
    earlier = sorted(above - {380, 390, 400})
    assert (chosen[0], chosen[2]) == (earlier[0], earlier[-1])


def test_one_walker_gives_candidates_of_several_moments(tmp_path):
    """The frame that halted it, and thinned frames between `gamma_select` and the threshold, are cut."""
    walker = {"structure": {"prototype": "fcc", "a": 4.05, "supercell": [2, 2, 2]}, "temperatures": [1200]}
    config = make_config(**walker, exploration={"steps": 2000, "uncertainty_threshold": 2.5, "gamma_select": 1.5})
    paths = WalkerPaths(tmp_path / "md")
    outcome = run_walker(config, 0, "md_1200K", POTENTIAL, ACTIVE_SET, [], paths, tmp_path / "work")
    assert outcome["outcome"] == "halted"
    cuts, refused = extract_generation(config, 0, {"md_1200K": paths}, POTENTIAL, ACTIVE_SET)
    assert refused == []
    assert cuts[0].info["step"] == outcome["step"]
    assert len({cut.info["step"] for cut in cuts}) > 1
    for cut in cuts[1:]:
        assert 1.5 < cut.info["gamma"] <= 2.5


@pytest.mark.parametrize(
    ("steps", "n_atoms", "dump_every", "expected"),
    [
        (500, 256, None, (10, 30)),
        (10_000, 256, None, (100, 500)),
        (10_000, 256, 2000, (100, 2000)),
        (1_000_000, 10_000, None, (10_000, 50_000)),
        (100_000, 1_000_000, None, (20_000, 20_000)),
    ],
)
def test_dumps_of_long_runs_and_large_cells_stay_small(steps, n_atoms, dump_every, expected):
    inference = InferenceConfig(temperature=300, steps=steps, dump_every=dump_every, seed=1)
    assert inference.dump_intervals(n_atoms) == expected
    candidates = inference.dump_intervals(n_atoms)[0]
    assert steps // candidates * n_atoms <= 5_000_000


def make_config(exploration: dict | None = None, **walker):
    content = yaml.safe_load(CONFIG.read_text())
    content["exploration"] |= {"steps": 20, "walkers": [{"temperatures": [300]} | walker], "uncertainty_threshold": 1e6}
    content["exploration"] |= exploration or {}
    return parse_config(content)


def run_from(config, name: str, directory: Path, labels: tuple[Path, ...] = ()) -> Atoms:
    """The first frame of a walker's run."""
    paths = WalkerPaths(directory / name)
    outcome = run_walker(config, 0, name, POTENTIAL, ACTIVE_SET, labels, paths, directory / "work")
    assert outcome["outcome"] == "completed"
    return read_last_frames(paths.dump, 99)[0]


def test_replicas_start_alike_and_part(tmp_path):
    config = make_config(structure={"prototype": "fcc", "a": 4.05, "supercell": [2, 2, 2]}, replicas=2)
    frames = [run_from(config, f"md_300K_r{replica}", tmp_path) for replica in range(2)]
    assert frames[0].positions == pytest.approx(frames[1].positions)
    ended = [read_last_frames(tmp_path / f"md_300K_r{replica}" / "dump.lammpstrj")[0] for replica in range(2)]
    assert np.abs(ended[0].positions - ended[1].positions).max() > 0.01


def test_walker_from_a_file(tmp_path):
    atoms = bulk("Al", a=4.1, cubic=True)
    ase.io.write(tmp_path / "start.cif", atoms)
    config = make_config(structure={"file": str(tmp_path / "start.cif"), "supercell": [2, 2, 3]})
    start = run_from(config, "md_300K", tmp_path)
    assert start.cell.lengths() == pytest.approx([8.2, 8.2, 12.3], abs=1e-4)


def test_walker_from_the_data_set(tmp_path, al_labels):
    """One of the labels that are periodic and trained on as a whole, repeated until it holds twice the cutoff (9 Å)."""
    cluster, masked = al_labels[0].copy(), al_labels[1].copy()
    cluster.pbc = False
    masked.info["energy_weight"] = 0.0
    write_structures(tmp_path / "a.extxyz", [cluster, masked])
    write_structures(tmp_path / "b.extxyz", al_labels[2:4])
    config = make_config(structure={"data_set": True}, replicas=4)
    drawn = set()
    for replica in range(4):
        start = run_from(config, f"md_300K_r{replica}", tmp_path, (tmp_path / "a.extxyz", tmp_path / "b.extxyz"))
        assert len(start) == 8 * 32
        drawn |= {
            number
            for number, label in enumerate(al_labels)
            if start.get_volume() == pytest.approx(8 * label.get_volume(), rel=1e-6)
        }
    assert drawn == {2, 3}
    with pytest.raises(ValueError, match="data_set: none of 1 structures is periodic"):
        run_from(config, "md_300K_r0", tmp_path, (tmp_path / "a.extxyz",))
