"""A run that was killed and goes on from its restart file is the run that was never disturbed."""

import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms

from mlip_auto.config import parse_config
from mlip_auto.exploration import run_walker
from mlip_auto.lammps_input import InferenceConfig, write_input
from mlip_auto.lammps_output import read_last_frames, read_thermo, truncate_dump
from mlip_auto.lammps_restart import find_safe_restart, list_restarts, read_restart_step
from mlip_auto.md import LammpsFailed, LammpsRunner
from mlip_auto.paths import WalkerPaths
from mlip_auto.structures import read_json

NATIVE = WalkerPaths(Path(__file__).parents[1] / "data" / "native_pace")
TINY = Path(__file__).parents[1] / "workflow" / "tiny.yaml"
POTENTIAL, ACTIVE_SET = NATIVE.directory / "potential.yaml", NATIVE.directory / "potential.asi"


@pytest.fixture(scope="module")
def start() -> Atoms:
    return ase.io.read(NATIVE.start, format="lammps-data")


def make_inference(**changes) -> InferenceConfig:
    return InferenceConfig(**({"temperature": 1200, "steps": 120, "restart_every": 45, "seed": 4242} | changes))


def run_script(run: WalkerPaths, log: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "mlip_auto.lammps_library", "-in", run.input.name, "-log", log, *arguments]
    subprocess.run(command, cwd=run.directory, check=True)


@pytest.fixture(scope="module", params=[None, 0.0], ids=["NVT", "NPT"])
def undisturbed(request, tmp_path_factory, start: Atoms) -> WalkerPaths:
    """120 steps with restart files at 50 and 100."""
    run = WalkerPaths(tmp_path_factory.mktemp("undisturbed"))
    write_input(run, start, POTENTIAL, ACTIVE_SET, make_inference(pressure=request.param))
    run_script(run, run.log.name)
    return run


def test_resumed_trajectory_is_the_undisturbed_one(undisturbed, tmp_path):
    """From the older of both restart files; what differs is the rounding of sums in another order."""
    run = WalkerPaths(tmp_path)
    for file in (undisturbed.input, undisturbed.start, undisturbed.dump, undisturbed.directory / "restart.a"):
        shutil.copy(file, tmp_path)
    truncate_dump(run.dump, 50)
    assert read_last_frames(run.dump)[0].info["step"] == 40
    run_script(run, "log.1", "-var", "resume", "restart.a")

    frames, expected = read_last_frames(run.dump, 99), read_last_frames(undisturbed.dump, 99)
    assert [frame.info["step"] for frame in frames] == list(range(0, 121, 10))
    for frame, other in zip(frames, expected, strict=True):
        assert frame.info["step"] == other.info["step"]
        np.testing.assert_allclose(frame.cell[:], other.cell[:], rtol=1e-9)
        np.testing.assert_allclose(frame.positions, other.positions, rtol=0, atol=1e-8)
        np.testing.assert_allclose(frame.arrays["gamma"], other.arrays["gamma"], rtol=1e-7)

    run.log.write_text(undisturbed.log.read_text() + (tmp_path / "log.1").read_text())
    thermo, others = read_thermo(run.log), read_thermo(undisturbed.log)
    assert list(thermo.index) == list(others.index) == list(range(0, 121, 10))
    np.testing.assert_allclose(thermo.to_numpy(), others.to_numpy(), rtol=1e-8)


def test_rows_after_the_restart_file_are_those_of_the_resumption(tmp_path):
    log = tmp_path / "log"
    rows = "Step Time v_gamma_max\n{}Loop time of 1\n"
    log.write_text(rows.format("0 0 1\n10 1 2\n20 2 3\n30 3 4\n") + rows.format("10 1 2\n20 2 2.5\n"))
    thermo = read_thermo(log)
    assert thermo["v_gamma_max"].to_dict() == {0: 1, 10: 2, 20: 2.5}


def test_a_torn_restart_file_does_not_count(undisturbed, tmp_path):
    for name in ("restart.a", "restart.b"):
        shutil.copy(undisturbed.directory / name, tmp_path)
    first, second = list_restarts(tmp_path)
    assert (first.file.name, first.step, second.file.name, second.step) == ("restart.b", 100, "restart.a", 50)
    whole = first.file.read_bytes()
    for torn in (b"", whole[:10], whole[:16], whole[:-1], whole[: len(whole) // 2]):
        first.file.write_bytes(torn)
        assert read_restart_step(first.file) is None
        assert [restart.step for restart in list_restarts(tmp_path)] == [50]


def test_the_safe_restart_file_is_the_last_one_below_gamma_select(undisturbed):
    thermo = read_thermo(undisturbed.log)
    late, early = thermo.loc[100, "v_gamma_max"], thermo.loc[50, "v_gamma_max"]
    assert late < early
    find = lambda gamma_select: find_safe_restart(undisturbed.directory, thermo, gamma_select)  # noqa: E731
    assert find(late).step == 100
    assert find(0.99 * late) is None
    thermo.loc[100, "v_gamma_max"] = np.nan
    assert find(early).step == 50


class Walker:
    """One walker under `folder`, run as often as a test asks."""

    def __init__(self, folder: Path, start: Atoms):
        self.paths = WalkerPaths(folder / "md" / "walker")
        self.scratch = folder / "work"
        self.start = start

    def run(self, runner: LammpsRunner, resume_from: Path | None = None, **changes):
        outcome = runner.run_md(
            self.start, POTENTIAL, ACTIVE_SET, make_inference(**changes), self.paths, self.scratch, resume_from
        )
        assert read_json(self.paths.outcome) == outcome
        return outcome


@pytest.fixture
def walker(tmp_path, start) -> Walker:
    return Walker(tmp_path, start)


def assert_is_whole(walker: Walker, undisturbed: WalkerPaths) -> None:
    thermo, others = read_thermo(walker.paths.log), read_thermo(undisturbed.log)
    assert list(thermo.index) == list(range(0, 121, 10))
    np.testing.assert_allclose(thermo.to_numpy(), others.to_numpy(), rtol=1e-8)
    frames, expected = read_last_frames(walker.paths.dump, 99), read_last_frames(undisturbed.dump, 99)
    for frame, other in zip(frames, expected, strict=True):
        assert frame.info["step"] == other.info["step"]
        np.testing.assert_allclose(frame.positions, other.positions, rtol=0, atol=1e-8)


@pytest.mark.parametrize("undisturbed", [None], ids=["NVT"], indirect=True)
def test_a_killed_run_goes_on_from_its_restart_file(walker, undisturbed, engine_that_fails):
    """Killed at step 75 and at its next start at step 68, then left alone."""
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    for evaluation in (77, 20):
        with pytest.raises(LammpsFailed, match="SIGKILL"):
            walker.run(engine_that_fails(kill, evaluation))
        assert not walker.paths.outcome.exists()
    outcome = walker.run(LammpsRunner())
    assert (outcome["outcome"], outcome["step"], outcome["start_step"], outcome["attempts"]) == ("completed", 120, 0, 3)
    assert outcome["seconds"] > 0
    assert not walker.scratch.exists() and not walker.paths.restart.exists()
    assert_is_whole(walker, undisturbed)


@pytest.mark.parametrize("undisturbed", [None], ids=["NVT"], indirect=True)
def test_a_run_out_of_time_goes_on_where_it_was(walker, undisturbed, engine_that_fails):
    """LAMMPS hangs at step 75, as a dead node makes it; what it has done until then counts."""
    hangs = "time.sleep(3600)", 77
    for minutes in (0.1, 0.4, 1.6, 6.4):
        shutil.rmtree(walker.scratch, ignore_errors=True)
        try:
            outcome = walker.run(engine_that_fails(*hangs, max_minutes=minutes))
        except LammpsFailed as error:  # this machine is too slow for a restart file in that time
            assert "raise exploration.max_minutes" in str(error) or "no step was computed" in str(error)
            continue
        if outcome["step"] == 70:  # else it is too slow for step 75
            break
    assert outcome["outcome"] == "out_of_time"
    assert outcome["step"] == 70
    assert "step 70 of 120" in outcome["reason"]
    assert [frame.info["step"] for frame in read_last_frames(walker.paths.dump, 99)] == list(range(0, 71, 10))
    assert read_restart_step(walker.scratch / "restart.a") == 50

    outcome = walker.run(LammpsRunner())
    assert (outcome["outcome"], outcome["step"], outcome["start_step"]) == ("completed", 120, 0)
    assert_is_whole(walker, undisturbed)


def test_another_potential_or_another_run_starts_anew(walker, engine_that_fails):
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(LammpsFailed, match="SIGKILL"):
        walker.run(engine_that_fails(kill, 77))
    outcome = walker.run(LammpsRunner(), temperature=300)
    assert (outcome["outcome"], outcome["step"], outcome["attempts"]) == ("completed", 120, 1)
    assert read_thermo(walker.paths.log).loc[0, "Temp"] == pytest.approx(300)


def test_the_next_generation_goes_on_from_the_last_safe_restart_file(walker, tmp_path):
    """A halt leaves a restart file of a step at which gamma was small; a run from it counts its steps on."""
    outcome = walker.run(LammpsRunner(), steps=2000, uncertainty_threshold=3.4, gamma_select=2.0)
    assert outcome["outcome"] == "halted"
    thermo = read_thermo(walker.paths.log)
    step = read_restart_step(walker.paths.restart)
    assert step % 50 == 0 and 0 < step < outcome["step"]
    assert thermo.loc[step, "v_gamma_max"] <= 2.0

    following = Walker(tmp_path / "next", walker.start)
    outcome = following.run(LammpsRunner(), walker.paths.restart, steps=step + 30, seed=1)
    assert (outcome["outcome"], outcome["start_step"], outcome["step"]) == ("completed", step, step + 30)
    resumed = read_thermo(following.paths.log)
    assert resumed.loc[step, "Temp"] == pytest.approx(thermo.loc[step, "Temp"], rel=1e-6)
    assert outcome["time_ps"] == pytest.approx(0.001 * (step + 30))


def test_exploration_resume_is_for_base_walkers_of_the_next_generation(walker, tmp_path):
    content = yaml.safe_load(TINY.read_text())
    content["lammps"] = {"engine": "library"}
    content["exploration"] |= {"resume": "restart", "steps": 100, "uncertainty_threshold": 1e6}
    walker.run(LammpsRunner(), steps=100, uncertainty_threshold=3.0, gamma_select=3.0)
    restart = walker.paths.restart
    assert read_restart_step(restart) == 50

    def first_step(name: str, resume: str = "restart", previous: Path = restart) -> int:
        content["exploration"]["resume"] = resume
        return run_walker(
            parse_config(content),
            generation=1,
            name=name,
            potential=POTENTIAL,
            active_set=ACTIVE_SET,
            labels=[],
            paths=WalkerPaths(tmp_path / name / "md"),
            scratch=tmp_path / name / "work",
            previous=previous,
        )["start_step"]

    assert first_step("md_300K") == 50
    assert first_step("md_300K", resume="start") == 0
    assert first_step("md_300K", previous=tmp_path / "none") == 0
    assert first_step("md_300K_c1") == 0
