"""The library engine against python-ace's own calculator and against a native LAMMPS with ML-PACE."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from pyace.asecalc import PyACECalculator

from mlip_auto.ace import build_basis, compute_active_set, make_periodic, save_active_set
from mlip_auto.lammps_input import InferenceConfig, write_input
from mlip_auto.lammps_output import read_halt, read_last_frames, read_thermo
from mlip_auto.paths import WalkerPaths

PRESSURES = ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")
NATIVE = Path(__file__).parents[1] / "data" / "native_pace"


@pytest.fixture(scope="module")
def potentials(tmp_path_factory, small_basis) -> dict[str, tuple[Path, Path]]:
    """Potential and active set by system: the native sample's Al, and Al-Cu with random small coefficients."""
    directory = tmp_path_factory.mktemp("potential")
    potential, active_set = directory / "potential.yaml", directory / "potential.asi"
    basis = build_basis(small_basis, ["Al", "Cu"])
    rng = np.random.default_rng(3)
    basis.set_func_coeffs(0.02 * rng.normal(size=len(basis.get_func_coeffs())))
    basis.save(str(potential))
    structures = [make_alloy(seed) for seed in range(2)]
    save_active_set(compute_active_set(basis, structures), ["Al", "Cu"], active_set)
    return {"Al": (NATIVE / "potential.yaml", NATIVE / "potential.asi"), "AlCu": (potential, active_set)}


def make_alloy(seed: int) -> Atoms:
    atoms = bulk("Al", a=4.0, cubic=True) * (2, 2, 2)
    rng = np.random.default_rng(seed)
    atoms.symbols[rng.permutation(len(atoms))[:12]] = "Cu"
    atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    return atoms


def make_triclinic() -> Atoms:
    """Not in LAMMPS's orientation, skewed, its vectors shorter than the cutoff, atoms outside the cell."""
    atoms = bulk("Al", a=4.1) * (2, 2, 3)
    atoms.set_cell(atoms.cell[:] @ np.array([[1, 0.03, 0], [0, 1.02, -0.04], [0.02, 0, 0.99]]), scale_atoms=True)
    atoms.rotate(35, (1, 2, 3), rotate_cell=True)
    atoms.rattle(0.08, seed=2)
    atoms.positions += [3.0, -5.0, 11.0]
    return atoms


def make_skewed() -> Atoms:
    """A cell that LAMMPS's barostat would refuse as too far tilted."""
    atoms = bulk("Al", a=4.05, cubic=True) * (2, 2, 2)
    atoms.set_cell(atoms.cell[:] + np.array([[0, 0, 0], [16.2, 0, 0], [8.1, 24.3, 0]]))
    atoms.rattle(0.05, seed=6)
    return atoms


def make_triclinic_alloy() -> Atoms:
    atoms = make_triclinic()
    atoms.symbols[::3] = "Cu"
    return atoms


def make_alloy_cluster() -> Atoms:
    atoms = make_alloy(8)
    atoms.set_cell(None)
    atoms.pbc = False
    return atoms


def make_alloy_wire() -> Atoms:
    """Periodic along y alone."""
    atoms = make_alloy(10)
    atoms.pbc = (False, True, False)
    return atoms


def make_cluster() -> Atoms:
    atoms = bulk("Al", a=4.05, cubic=True) * (2, 2, 2)
    atoms.cell = None
    atoms.pbc = False
    atoms.rattle(0.05, seed=4)
    return atoms


def make_slab() -> Atoms:
    atoms = fcc111("Al", (3, 3, 4), a=4.05, vacuum=None)
    atoms.pbc = (True, True, False)
    atoms.rattle(0.05, seed=5)
    return atoms


def run_engine(
    directory: Path, atoms: Atoms, potential: tuple[Path, Path], inference: InferenceConfig
) -> tuple[WalkerPaths, Atoms]:
    """Run in.lammps with forces and pressures written too; the files and the last frame with `forces` in its arrays."""
    run = WalkerPaths(directory)
    write_input(run, atoms, *potential, inference)
    more = (
        f"thermo_style custom step time temp pe etotal press vol v_gamma_max {' '.join(PRESSURES)}\n"
        "thermo_modify format float %.17g flush yes\n"
        "dump forces all custom 1 forces id type element fx fy fz\n"
        f"dump_modify forces sort id element {' '.join(sorted(set(atoms.symbols)))} format float %.17g\n"
    )
    run.input.write_text(run.input.read_text().replace("\nrun ", f"\n{more}run ", 1))
    run_program(run)
    frame = read_last_frames(run.dump)[0]
    rows = (directory / "forces").read_text().splitlines()[-len(atoms) :]
    frame.arrays["forces"] = np.array([row.split()[3:] for row in rows], dtype=float)
    return run, frame


def run_program(run: WalkerPaths, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "mlip_auto.lammps_library", "-in", run.input.name, "-log", run.log.name, *arguments],
        cwd=run.directory,
        check=True,
    )


@pytest.mark.parametrize(
    ("system", "make"),
    [
        ("Al", make_triclinic),
        ("Al", make_skewed),
        ("AlCu", lambda: make_alloy(9)),
        ("AlCu", make_triclinic_alloy),
        ("Al", make_cluster),
        ("AlCu", make_alloy_cluster),
        ("Al", make_slab),
        ("AlCu", make_alloy_wire),
    ],
    ids=["triclinic", "skewed", "alloy", "triclinic alloy", "cluster", "alloy cluster", "slab", "alloy wire"],
)
def test_first_frame_is_that_of_python_ace(tmp_path, potentials, system, make):
    """Energy, forces, virial and gamma at the start, in the cell and order of the structure that was given."""
    potential = potentials[system]
    atoms = make()
    inference = InferenceConfig(temperature=1e-6, steps=1, gamma_every=1, uncertainty_threshold=1e-9, seed=1)
    run, frame = run_engine(tmp_path, atoms, potential, inference)

    calculator = PyACECalculator(str(potential[0]))
    calculator.set_active_set(str(potential[1]))
    reference = make_periodic(atoms, calculator.cutoff)
    reference.calc = calculator
    thermo = read_thermo(run.log)
    assert frame.info["step"] == 0
    assert frame.pbc.tolist() == atoms.pbc.tolist()
    assert frame.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert thermo["PotEng"].iloc[0] == pytest.approx(reference.get_potential_energy(), rel=1e-9, abs=1e-9)
    assert frame.arrays["gamma"] == pytest.approx(calculator.results["gamma"], rel=1e-7)
    assert thermo["v_gamma_max"].iloc[0] == pytest.approx(max(calculator.results["gamma"]), rel=1e-9)

    forces = reference.get_forces()
    assert np.abs(forces).max() > 0.01
    assert np.linalg.norm(frame.arrays["forces"], axis=1) == pytest.approx(np.linalg.norm(forces, axis=1), abs=1e-8)
    # The trace of the virial does not depend on the empty space around the atoms.
    boxed = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell.complete(), pbc=True)
    boxed.center(vacuum=calculator.cutoff, axis=np.flatnonzero(~atoms.pbc).tolist())
    boxed.calc = calculator
    virial = -np.trace(boxed.get_stress(voigt=False)) / 3 * boxed.get_volume()
    assert thermo["Press"].iloc[0] * units.bar * thermo["Volume"].iloc[0] == pytest.approx(virial, rel=1e-6)
    if atoms.pbc.all():
        # The same in LAMMPS's orientation, where the components of a force can be compared.
        assert frame.get_volume() == pytest.approx(atoms.get_volume(), rel=1e-9)
        frame.calc = calculator
        assert frame.arrays["forces"] == pytest.approx(frame.get_forces(), abs=1e-6)
        xx, yy, zz, yz, xz, xy = -frame.get_stress() / units.bar
        tensor = thermo.iloc[0][["Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz"]].to_numpy()
        assert tensor == pytest.approx([xx, yy, zz, xy, xz, yz], rel=1e-6, abs=0.01)


@pytest.mark.parametrize(
    ("system", "make", "pressure"),
    [
        ("Al", lambda: make_triclinic() * (1, 2, 1), 5e4),
        ("AlCu", lambda: make_alloy(5), 5e4),
        ("AlCu", make_triclinic_alloy, 5e4),
        ("Al", make_slab, None),
        ("AlCu", make_alloy_wire, None),
        ("AlCu", make_alloy_cluster, None),
    ],
    ids=["triclinic", "alloy", "triclinic alloy", "slab", "alloy wire", "alloy cluster"],
)
def test_neighbours_stay_right_during_hot_md(tmp_path, potentials, system, make, pressure):
    """A thin skin, so many rebuilds: the last frame is still that of python-ace."""
    potential = potentials[system]
    atoms = make()
    inference = InferenceConfig(
        temperature=900, pressure=pressure, timestep=2, steps=150, uncertainty_threshold=1e6, skin=0.2, seed=11
    )
    run, frame = run_engine(tmp_path, atoms, potential, inference)
    assert frame.info["step"] == 150
    builds = next(line for line in run.log.read_text().splitlines()[::-1] if "Neighbor list builds" in line)
    assert int(builds.split()[-1]) > 10
    if pressure is not None:
        assert abs(frame.get_volume() / atoms.get_volume() - 1) > 1e-3
    calculator = PyACECalculator(str(potential[0]))
    calculator.set_active_set(str(potential[1]))
    reference = make_periodic(frame, calculator.cutoff)
    reference.calc = calculator
    thermo = read_thermo(run.log)
    assert thermo.loc[150, "PotEng"] == pytest.approx(reference.get_potential_energy(), rel=1e-7)
    assert frame.arrays["forces"] == pytest.approx(reference.get_forces(), abs=1e-5)
    assert frame.arrays["gamma"] == pytest.approx(calculator.results["gamma"], rel=1e-5)


@pytest.mark.parametrize("system", ["Al", "AlCu"])
def test_energy_is_conserved(tmp_path, potentials, system):
    """NVE: forces are the gradient of the energy, also across rebuilds of the neighbour list and steps with gamma."""
    atoms = bulk("Al", a=4.05, cubic=True) * (3, 3, 3) if system == "Al" else make_alloy(3)
    drifts = []
    for timestep, steps in ((2.0, 100), (1.0, 200)):
        run = WalkerPaths(tmp_path / f"{timestep:g}")
        inference = InferenceConfig(
            temperature=600, timestep=timestep, steps=steps, uncertainty_threshold=1e6, skin=0.3, seed=5
        )
        write_input(run, atoms, *potentials[system], inference)
        script, changes = re.subn(r"(fix +\S+ all) nvt temp .*", r"\1 nve", run.input.read_text())
        assert changes == 1
        run.input.write_text(script)
        run_program(run)
        thermo = read_thermo(run.log)
        assert thermo["PotEng"].max() - thermo["PotEng"].min() > 0.1
        drifts.append(np.ptp(thermo["TotEng"].to_numpy()) / len(atoms))
    # Velocity Verlet: the error falls with the square of the time step.
    assert drifts[0] < 3e-4  # eV/atom
    assert drifts[1] < 0.4 * drifts[0]


def test_native_lammps_is_reproduced(tmp_path):
    """The input of a native LAMMPS, unchanged: thermo to 8 digits over all 1280 steps, halt, positions and gamma."""
    native, run = WalkerPaths(NATIVE), WalkerPaths(tmp_path)
    for name in ("in.lammps", "start.data", "potential.yaml", "potential.asi"):
        shutil.copy(NATIVE / name, tmp_path)
    run_program(run, "-var", "threshold", "5.0")

    expected, thermo = read_thermo(native.log), read_thermo(run.log)
    assert list(thermo.columns) == list(expected.columns)
    assert list(thermo.index) == list(range(0, 1281, 10))
    np.testing.assert_allclose(thermo.to_numpy(), expected.to_numpy(), rtol=1e-8, atol=0)

    halt = read_halt(run.log)
    assert halt is not None
    assert halt.step == 1280
    assert halt.gamma == pytest.approx(5.30693688, abs=1e-8)

    frames, expected_frames = read_last_frames(run.dump, 2), read_last_frames(native.dump, 2)
    for frame, expected_frame in zip(frames, expected_frames, strict=True):
        assert frame.info["step"] == expected_frame.info["step"]
        np.testing.assert_allclose(frame.positions, expected_frame.positions, rtol=0, atol=1e-7)
        np.testing.assert_allclose(frame.arrays["gamma"], expected_frame.arrays["gamma"], rtol=1e-7)


def test_data_file_keeps_masses_and_order(tmp_path, potentials):
    atoms = make_alloy(2)
    atoms.set_masses([30.0 if symbol == "Al" else 60.0 for symbol in atoms.symbols])
    run = WalkerPaths(tmp_path)
    write_input(run, atoms, *potentials["AlCu"], InferenceConfig(temperature=300, steps=10, seed=1))
    read = ase.io.read(run.start, format="lammps-data")
    masses = run.start.read_text().split("Masses")[1].split("Atoms")[0].split()
    assert [float(masses[1]), float(masses[5])] == pytest.approx([30.0, 60.0])
    assert [masses[3], masses[7]] == ["Al", "Cu"]
    assert read.arrays["type"].tolist() == [1 if symbol == "Al" else 2 for symbol in atoms.symbols]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep": -1.0}, "greater than 0"),
        ({"steps": 55}, r"55, not a multiple of gamma_every \(10\)"),
        ({"seed": 0}, "greater than or equal to 1"),
    ],
)
def test_bad_conditions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        InferenceConfig(**({"temperature": 300, "steps": 50, "seed": 1} | change))


def test_periodic_direction_needs_a_cell_vector(tmp_path, potentials):
    atoms = make_cluster()
    atoms.pbc = (False, False, True)
    inference = InferenceConfig(temperature=300, steps=10, seed=1)
    with pytest.raises(ValueError, match="needs a cell vector of its own"):
        write_input(WalkerPaths(tmp_path), atoms, *potentials["Al"], inference)


def test_barostat_needs_a_periodic_cell(tmp_path, potentials):
    inference = InferenceConfig(temperature=300, pressure=0, steps=10, seed=1)
    with pytest.raises(ValueError, match="periodic along all three vectors"):
        write_input(WalkerPaths(tmp_path), make_slab(), *potentials["Al"], inference)
