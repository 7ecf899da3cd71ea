"""Reading logs and dumps, and what becomes of a run: completed, halted or crashed, never anything else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import psutil
import pytest
from ase import Atoms

from mlip_auto.lammps_input import InferenceConfig
from mlip_auto.lammps_output import Halt, read_error, read_halt, read_last_frames, read_thermo
from mlip_auto.md import LammpsFailed, LammpsRunner, describe_outcome
from mlip_auto.paths import WalkerPaths
from mlip_auto.structures import read_json

NATIVE = WalkerPaths(Path(__file__).parents[1] / "data" / "native_pace")
POTENTIAL, ACTIVE_SET = NATIVE.directory / "potential.yaml", NATIVE.directory / "potential.asi"


def make_inference(**changes) -> InferenceConfig:
    return InferenceConfig(**({"temperature": 1200, "steps": 50, "seed": 4242} | changes))


@pytest.fixture
def start() -> Atoms:
    return ase.io.read(NATIVE.start, format="lammps-data")


@pytest.fixture
def run_md(tmp_path):
    """`LammpsRunner.run_md` on the sample's potential, with files under tmp_path."""

    def run(atoms: Atoms, runner: LammpsRunner | None = None, active_set: Path = ACTIVE_SET, **changes):
        paths = WalkerPaths(tmp_path / "md" / "walker")
        outcome = (runner or LammpsRunner()).run_md(
            atoms, POTENTIAL, active_set, make_inference(**changes), paths, tmp_path / "work"
        )
        assert read_json(paths.outcome) == outcome
        assert not (tmp_path / "work").exists()
        assert all(path.exists() for path in (paths.input, paths.start, paths.log, paths.dump))
        return outcome, paths

    return run


def test_native_output_reads_as_halted():
    thermo = read_thermo(NATIVE.log)
    assert list(thermo.columns) == ["Time", "Temp", "PotEng", "TotEng", "Press", "v_gamma_max"]
    assert list(thermo.index) == list(range(0, 1281, 10))
    assert thermo.loc[1280, "PotEng"] == 42.23618099
    assert read_halt(NATIVE.log) == Halt(1280, 5.306936880322872)
    assert read_error(NATIVE.log) is None

    before, last = read_last_frames(NATIVE.dump, 5)
    assert (before.info["step"], last.info["step"]) == (1270, 1280)
    assert last.arrays["gamma"].max() == pytest.approx(5.3069, abs=1e-4)
    assert last.positions[255] == pytest.approx([14.04208295, 13.89217184, 11.93180451])
    assert last.pbc.all()
    assert last.cell[:] == pytest.approx(16 * np.eye(3))

    outcome = describe_outcome(NATIVE, make_inference(steps=2000), failure=None)
    assert outcome["outcome"] == "halted"
    assert (outcome["step"], outcome["steps"], outcome["time_ps"]) == (1280, 2000, 1.28)
    assert outcome["gamma_max"] == 5.30693688
    assert outcome["atom"] == int(last.arrays["gamma"].argmax())


@pytest.mark.parametrize(("steps", "expected"), [(1280, "completed"), (2000, "crashed")])
def test_completed_only_if_the_last_step_is_the_one_asked_for(tmp_path, steps, expected):
    """A log without the message of the halt, from a program that says all went well."""
    run = WalkerPaths(tmp_path)
    run.log.write_text(
        "".join(line for line in NATIVE.log.read_text().splitlines(keepends=True) if "Fix halt condition" not in line)
    )
    shutil.copy(NATIVE.dump, run.dump)
    outcome = describe_outcome(run, make_inference(steps=steps), failure=None)
    assert (outcome["outcome"], outcome["step"]) == (expected, 1280)


def test_torn_files_of_a_killed_run(tmp_path):
    """A log that ends inside a row, a dump that ends inside a frame: what is whole counts."""
    run = WalkerPaths(tmp_path)
    log, dump = NATIVE.log.read_text(), NATIVE.dump.read_text()
    run.log.write_text(log[: log.index("\n       100 ") + 30])
    run.dump.write_text(dump[:-40])
    assert read_thermo(run.log).index[-1] == 90
    assert [frame.info["step"] for frame in read_last_frames(run.dump, 2)] == [1270]
    run.dump.write_text("")
    run.log.write_text("LAMMPS (22 Jul 2025 - Update 4)\n")
    assert read_last_frames(run.dump) == []
    assert read_thermo(run.log).empty


def test_triclinic_frame(tmp_path):
    """Box bounds enclose the tilted cell; ids out of order; an open direction; an origin that is not zero."""
    cell = np.array([[8.0, 0, 0], [-2.0, 7.0, 0], [1.5, -1.0, 6.0]])
    origin = np.array([0.5, -0.25, 1.0])
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ cell + origin
    low, high = corners.min(axis=0), corners.max(axis=0)
    high[2], low[2] = origin[2] + 6.0, origin[2]
    positions = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 5.5]])
    x = positions + origin
    dump = tmp_path / "dump"
    dump.write_text(
        "ITEM: TIMESTEP\n7\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS xy xz yz pp pp ss\n"
        f"{low[0]} {high[0]} -2.0\n{low[1]} {high[1]} 1.5\n{low[2]} {high[2]} -1.0\n"
        "ITEM: ATOMS id type element x y z f_gamma\n"
        f"2 2 Cu {x[1, 0]} {x[1, 1]} {x[1, 2]} 0.25\n1 1 Al {x[0, 0]} {x[0, 1]} {x[0, 2]} 0.75\n"
    )
    (frame,) = read_last_frames(dump)
    assert frame.cell[:] == pytest.approx(cell)
    assert frame.positions == pytest.approx(positions)
    assert frame.get_chemical_symbols() == ["Al", "Cu"]
    assert frame.arrays["gamma"].tolist() == [0.75, 0.25]
    assert frame.pbc.tolist() == [True, True, False]


def test_run_completes(run_md, start):
    outcome, paths = run_md(start)
    assert (outcome["outcome"], outcome["step"], outcome["time_ps"]) == ("completed", 50, 0.05)
    assert 1 < outcome["gamma_max"] == read_thermo(paths.log)["v_gamma_max"].max() < 5
    assert [frame.info["step"] for frame in read_last_frames(paths.dump, 9)] == [0, 10, 20, 30, 40, 50]


def test_run_halts(run_md, start):
    outcome, paths = run_md(start, uncertainty_threshold=2.0)
    last = read_last_frames(paths.dump)[0]
    assert (outcome["outcome"], outcome["step"]) == ("halted", last.info["step"])
    assert 0 < outcome["step"] < 50
    assert last.arrays["gamma"].argmax() == outcome["atom"]
    assert last.arrays["gamma"].max() == outcome["gamma_max"] > 2.0


def test_start_that_is_unknown_does_not_move(run_md, start):
    outcome, _ = run_md(start, uncertainty_threshold=0.5)
    assert (outcome["outcome"], outcome["step"], outcome["atom"]) == ("halted", 0, 35)


@pytest.mark.parametrize(
    ("distance", "reason"),
    [(0.3, "Lost atoms: original 256 current 254"), (0.4, "temperature above 13000 K at step 10")],
)
def test_colliding_atoms_end_as_crashed(run_md, start, distance, reason):
    """The repulsion of two atoms throws them apart, whatever gamma may be."""
    start.positions[1] = start.positions[0] + [distance, 0, 0]
    outcome, _ = run_md(start, uncertainty_threshold=1e12)
    assert outcome["outcome"] == "crashed"
    assert reason in outcome["reason"]


def test_gamma_that_is_not_computed_is_noticed_before_the_first_step(run_md, start, tmp_path):
    with (tmp_path / "zero.asi").open("wb") as file:
        np.savez(file, Al=np.zeros_like(np.load(ACTIVE_SET)["Al"]))
    with pytest.raises(LammpsFailed, match="gamma is not computed"):
        run_md(start, active_set=tmp_path / "zero.asi")
    assert not list(tmp_path.rglob("outcome.json"))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("raise RuntimeError('no more forces')", "RuntimeError: no more forces"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "LAMMPS was killed by SIGSEGV"),
    ],
    ids=["exception", "segmentation fault"],
)
def test_failure_in_the_callback_ends_the_run(run_md, start, engine_that_fails, failure, reason):
    """Nothing is written after it, and the reason is told."""
    outcome, paths = run_md(start, engine_that_fails(failure, evaluation=26))
    assert (outcome["outcome"], outcome["step"]) == ("crashed", 20)
    assert outcome["reason"] == reason
    assert read_last_frames(paths.dump)[0].info["step"] == 20


def test_a_program_killed_from_outside_has_no_outcome(run_md, start, tmp_path, engine_that_fails):
    """Out of memory or a cancelled job says nothing about the potential: the step is to be run again."""
    with pytest.raises(LammpsFailed, match="SIGKILL"):
        run_md(start, engine_that_fails("os.kill(os.getpid(), signal.SIGKILL)", evaluation=26))
    assert not list(tmp_path.rglob("outcome.json"))


def test_unknown_element_is_named(run_md, start):
    start.symbols[3] = "Cu"
    with pytest.raises(LammpsFailed, match="knows Al, not Cu"):
        run_md(start)


def test_lammps_dies_with_its_parent(tmp_path):
    """SIGKILL of the job: no orphan goes on, no outcome is left, not even one of an earlier attempt."""
    paths = WalkerPaths(tmp_path / "md")
    paths.directory.mkdir()
    paths.outcome.write_text("{}")
    job = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import ase.io\nfrom pathlib import Path\nfrom mlip_auto.md import *\n"
            f"atoms = ase.io.read({str(NATIVE.start)!r}, format='lammps-data')\n"
            "LammpsRunner().run_md(\n"
            f"    atoms, Path({str(POTENTIAL)!r}), Path({str(ACTIVE_SET)!r}),\n"
            "    InferenceConfig(temperature=300, steps=100_000, seed=1, uncertainty_threshold=1e9),\n"
            f"    WalkerPaths(Path({str(paths.directory)!r})), Path({str(tmp_path / 'work')!r}))\n",
        ]
    )
    dump = WalkerPaths(tmp_path / "work").dump
    deadline = time.monotonic() + 300
    while not (dump.exists() and dump.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    (engine,) = psutil.Process(job.pid).children()
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    psutil.wait_procs([engine], timeout=300)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
    assert not paths.outcome.exists()
