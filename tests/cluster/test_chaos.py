"""Kills at random moments of everything that can die, over one campaign.

`MLIP_CHAOS_KILLS=20` for a longer run than `make test-cluster` has time for, over two generations then.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial

import psutil
import pytest
from mini_slurm import MiniSlurm
from trial import Trial, kill

from campaign import TINY, Campaign
from mlip_auto.processes import find_processes

KILLS = int(os.environ.get("MLIP_CHAOS_KILLS", "4"))
LONG = 10  # kills, from which on one generation may be over before they are done
JOBS_BETWEEN = (0, 1) if KILLS >= LONG else (1, 2)  # two kills; few of them go on to MD too
SEED = 20261124
RULES = ("generate_candidates", "select_structures", "label_structures", "fit_potential", "run_md", "extract_clusters")
ENDED = 3  # exit code of tiny.yaml, which loop.max_generations stops


@pytest.fixture
def allowed_seconds() -> int:
    return 1200 + 120 * KILLS


@pytest.fixture
def undisturbed(undisturbed, run_undisturbed) -> Campaign:
    return run_undisturbed(TINY) if KILLS >= LONG else undisturbed


def test_a_campaign_survives_random_kills(slurm, make_campaign, undisturbed, faults):
    """Every label is paid for once, and structures and MD are those of the undisturbed campaign."""
    rng = random.Random(SEED)
    trial = Trial(slurm, make_campaign(undisturbed.config), undisturbed, faults)
    for number in range(1, KILLS + 1):
        wait_some_time(trial, rng)
        if trial.driver.poll() == ENDED:
            break
        if trial.driver.poll() is not None:  # killed, or a job was killed more often than it is sent again
            assert trial.driver.returncode in (-signal.SIGKILL, 1), trial.driver.communicate()[0]
            trial.start()
            wait_some_time(trial, rng)
        victims = find_victims(trial)
        victim = rng.choice(sorted(victims))
        fault = trial.note(f"chaos {number}: {victim}")
        fault.happened.append(victims[victim](rng))
        slurm.start_all()
    assert len(trial.faults) > KILLS / 2  # else it was over too soon
    output = trial.await_end_of_driver()
    while trial.driver.returncode != ENDED:
        assert trial.driver.returncode in (-signal.SIGKILL, 1), output
        trial.start()
        output = trial.await_end_of_driver()
    trial.judge(output)


def wait_some_time(trial: Trial, rng: random.Random) -> None:
    """Until some more jobs have been sent, and some seconds: kills reach all steps, however slow the machine is."""
    jobs = len(trial.slurm.list_jobs()) + rng.choice(JOBS_BETWEEN)
    trial.wait_for(lambda: len(trial.slurm.list_jobs()) >= jobs or trial.driver.poll() is not None, "another job")
    time.sleep(rng.uniform(0, 8))


def find_victims(trial: Trial) -> dict[str, Callable[[random.Random], str]]:
    """What can be killed at this moment; each kills one of its kind and says what that was."""
    victims = {"slurmd": partial(kill_slurmd, trial.slurm), "node": partial(lose_node, trial.slurm)}
    if trial.driver.poll() is None:
        victims["driver"] = partial(kill_all, [trial.driver])
    if processes := find_processes(trial.campaign.root):
        victims["Snakemake"] = partial(kill_all, processes)
    jobs = [(rule, process) for rule in RULES for process in trial.campaign.jobs(rule)]
    if jobs:
        victims["job"] = partial(kill_job, jobs)
    return victims


def kill_all(processes: list[psutil.Process | subprocess.Popen], rng: random.Random) -> str:
    kill(*processes)
    return "kill -9"


def kill_job(jobs: list[tuple[str, psutil.Process]], rng: random.Random) -> str:
    rule, process = rng.choice(jobs)
    kill(process)
    return f"kill -9 of a process of {rule}"


def choose_node(slurm: MiniSlurm, rng: random.Random) -> str:
    """One with jobs, where there is one."""
    return rng.choice([job.nodes for job in slurm.list_jobs() if job.is_live and job.nodes] or slurm.nodes)


def kill_slurmd(slurm: MiniSlurm, rng: random.Random) -> str:
    node = choose_node(slurm, rng)
    slurm.kill(node)
    return f"kill -9 of {node}'s; its jobs go on"


def lose_node(slurm: MiniSlurm, rng: random.Random) -> str:
    node = choose_node(slurm, rng)
    slurm.lose_node(node)
    return f"{node} lost with its jobs"
