"""Faults of a cluster, each provoked for real: no label is lost or paid twice, and the campaign comes to its end.

A row of the table each, printed after the tests. A campaign takes several faults, one after the other.
"""

import datetime
import errno
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from pyace.basis import BBasisConfiguration
from trial import Trial, kill

from campaign import signal_all
from mlip_auto.interim_fit import INTERIM, STEPS
from mlip_auto.processes import find_processes
from mlip_auto.structures import read_json

LONG_WALKER = "md_300K"  # completes; the other one halts early
FIT_STEPS = 200  # of pacemaker, some 40 ms each


@pytest.fixture
def fitted_by_pacemaker(one_generation, tmp_path) -> Path:
    """The same with a fit of many steps."""
    content = yaml.safe_load(one_generation.read_text())
    content["training"] |= {"solver": "pacemaker", "maxiter": FIT_STEPS}
    path = tmp_path / "fitted_by_pacemaker.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def begin(slurm, make_campaign, one_generation, undisturbed, faults) -> Callable[..., Trial]:
    """Starts a campaign of one generation on Slurm."""

    def begin(config: Path = one_generation, **keys: object) -> Trial:
        return Trial(slurm, make_campaign(config, **keys), undisturbed, faults)

    return begin


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 32 MB."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_file_system_and_jobs_that_are_cancelled_or_out_of_memory(slurm, small_disk, begin):
    trial = begin(root=small_disk / "campaign", fit_potential={"mem_mb": "300 if attempt == 1 else 8000"})
    jobs = trial.catch("label_structures")
    fault = trial.note("a second driver is started")
    code, output = trial.campaign.finish()
    assert code == 1
    assert f"is run by pid {trial.driver.pid}" in output
    fault.happened.append("refused; it names the first one's pid and host")
    cancel(trial, jobs[0], "label_structures")
    fill_the_disk(trial, small_disk)
    trial.wait_for(lambda: trial.sent("fit_potential") != [], "the fit in the queue")
    fault = trial.note("fit_potential out of memory")
    # OUT_OF_MEMORY is for cgroups to say; jobacct_gather ends the job's step, and the job has failed.
    state = trial.await_state(trial.sent("fit_potential")[0], "FAILED", "OUT_OF_MEMORY")
    fault.happened.append(f"{state}, sent again with more memory")
    cancel(trial, trial.catch("run_md")[0], "run_md")
    trial.finish()
    assert [fit.state for fit in slurm.list_jobs(trial.campaign.root) if fit.rule == "fit_potential"][1:] == [
        "COMPLETED"
    ]


def cancel(trial: Trial, job: int, rule: str) -> None:
    fault = trial.note(f"scancel of a {rule} job")
    trial.slurm.call("scancel", str(job))
    fault.happened.append(f"{trial.await_state(job, 'CANCELLED')}, sent again")
    trial.release(rule)


def fill_the_disk(trial: Trial, disk: Path) -> None:
    """Labels cannot be written then; with the disk free again the next driver goes on."""
    trial.catch("label_structures")
    fault = trial.note("the file system is full in label_structures")
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    trial.release("label_structures")
    output = trial.await_end_of_driver()
    assert trial.driver.returncode == 1
    assert "No space left on device" in output
    fault.happened.append("stops, says `No space left on device`; run again when there is some")
    ballast.unlink()
    trial.start()


def test_jobs_at_their_time_limit_are_sent_again(begin, fitted_by_pacemaker):
    trial = begin(fitted_by_pacemaker)
    training = trial.campaign.paths.generation(0).training
    trial.catch("label_structures")
    await_time_limit(trial, "label_structures", "goes on with the next label")

    trial.catch("fit_potential")
    steps = stop_after_a_step_of_the_fit(trial)
    await_time_limit(trial, "fit_potential", "pacemaker goes on from its last potential")

    trial.catch("run_md")
    assert yaml.safe_load((training / "input.yaml").read_text())["fit"]["maxiter"] <= FIT_STEPS - steps
    assert count_steps(training / "start.yaml") >= steps
    stop_after_a_restart_file(trial)
    await_time_limit(trial, "run_md", "MD goes on from its restart file")
    trial.finish(same_potential=False)
    assert read_json(trial.campaign.paths.generation(0).walker(LONG_WALKER).outcome)["attempts"] == 2


def await_time_limit(trial: Trial, rule: str, then: str) -> None:
    """Move the end of the caught jobs' time to now: Slurm ends them for that within half a minute."""
    jobs = trial.caught(rule)
    fault = trial.note(f"{rule} at its time limit")
    for job in jobs:
        now = f"{datetime.datetime.now():%Y-%m-%dT%H:%M:%S}"
        trial.slurm.call("scontrol", "update", f"JobId={job}", f"EndTime={now}")
    states = {trial.await_state(job, "TIMEOUT") for job in jobs}
    fault.happened.append(f"{', '.join(states)}, sent again with more time; {then}")
    trial.release(rule)


def stop_after_a_step_of_the_fit(trial: Trial) -> int:
    """Let pacemaker run until it has kept a potential; the steps that led to it."""
    interim = trial.campaign.paths.work(0, "training") / INTERIM
    trial.release("fit_potential")
    trial.campaign.wait_until(interim.exists, "an interim potential")
    signal_all(trial.campaign.jobs("fit_potential"), signal.SIGSTOP)
    return count_steps(interim)


def count_steps(interim: Path) -> int:
    """Steps of the optimiser that led to an interim potential."""
    return int(BBasisConfiguration(str(interim)).metadata[STEPS])


def stop_after_a_restart_file(trial: Trial) -> None:
    """Let MD run until the walker that will complete has written a restart file."""
    folder = trial.campaign.paths.work(0, f"md/{LONG_WALKER}")
    trial.campaign.stop_when("run_md", lambda: any(folder.rglob("restart.[ab]")), "a restart file")


def test_killed_drivers_and_snakemakes(begin):
    trial = begin()
    locks = trial.campaign.root / ".snakemake" / "locks"
    for rule, victims in (("label_structures", "driver"), ("fit_potential", "Snakemake"), ("run_md", "both")):
        jobs = trial.catch(rule)
        fault = trial.note(f"kill -9 of {victims} in {rule}")
        processes = {"driver": trial.driver, "Snakemake": trial.campaign.snakemake()}
        kill(*(processes[name] for name in ([victims] if victims in processes else processes)))
        output = trial.await_end_of_driver()
        if victims == "Snakemake":
            assert "Snakemake was ended by SIGKILL" in output
        trial.start()
        line = trial.await_line("Left by an earlier run: ")
        assert all(f"{job}" in line and trial.state(job) == "RUNNING" for job in jobs)
        if rule == "label_structures":
            stale = trial.note("the lock of the dead Snakemake is stale, but its jobs are in the queue")
            assert list(locks.iterdir()) and find_processes(trial.campaign.root) == []
            stale.happened.append("the next driver leaves it and starts nothing until they have ended")
        trial.release(rule)
        fault.happened.append("run again: its jobs are waited for, then it goes on")
    trial.finish()


def test_daemons_and_nodes_that_die(slurm, begin, monkeypatch):
    monkeypatch.setenv("MLIP_AUTO_HANG_SECONDS", "60")  # instead of 6 min
    trial = begin()
    job = trial.catch("label_structures")[0]
    fault = trial.note("slurmctld dies in label_structures and is back at once")
    slurm.save_state(job)
    slurm.kill("slurmctld")
    slurm.start("slurmctld")
    fault.happened.append(f"the job goes on: {trial.state(job)}")
    fault = trial.note("a node and its jobs die in label_structures")
    node = slurm.find_job(job).nodes
    slurm.lose_node(node)
    trial.release("label_structures")
    trial.wait_for(lambda: slurm.find_job(job).nodes not in ("", node), "the job on another node")
    fault.happened.append("Slurm starts the job again, with the same id, on another node")
    slurm.start_all()

    job = trial.catch("fit_potential")[0]
    fault = trial.note("slurmd dies in fit_potential and is back at once")
    node = slurm.find_job(job).nodes
    slurm.kill(node)
    slurm.start(node)
    trial.release("fit_potential")
    fault.happened.append(f"the job goes on: {trial.await_state(job, 'COMPLETED')}")

    trial.catch("run_md")
    fault = trial.note("slurmctld is away for 15 s while run_md ends")
    slurm.kill("slurmctld")
    trial.release("run_md")
    trial.campaign.wait_until(lambda: trial.campaign.job("run_md") is None, "the end of MD")
    time.sleep(15)
    slurm.start("slurmctld")
    fault.happened.append("it goes on when Slurm answers")
    trial.finish()
