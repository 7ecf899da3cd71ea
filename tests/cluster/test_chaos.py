"""Kills at random moments of everything that can die, over one campaign; `MLIP_CHAOS_KILLS=25` for a longer one."""

import os
import random
import signal
import time

from trial import Trial, kill

from campaign import TINY
from mlip_auto.processes import find_processes

KILLS = int(os.environ.get("MLIP_CHAOS_KILLS", "6"))
SEED = 20261124
RULES = ("generate_candidates", "select_structures", "label_structures", "fit_potential", "run_md", "extract_clusters")
ENDED = 3  # exit code of tiny.yaml, which loop.max_generations stops
VICTIMS = ("driver", "Snakemake", "job", "slurmd", "node")


def test_a_campaign_survives_random_kills(slurm, make_campaign, run_undisturbed, faults):
    """Every label is paid for once, and structures and MD are those of the undisturbed campaign."""
    rng = random.Random(SEED)
    trial = Trial(slurm, make_campaign(TINY), run_undisturbed(TINY), faults)
    for number in range(1, KILLS + 1):
        wait_some_time(trial, rng)
        if trial.driver.poll() == ENDED:
            break
        if trial.driver.poll() is not None:  # killed, or a job was killed more often than it is sent again
            assert trial.driver.returncode in (-signal.SIGKILL, 1), trial.driver.communicate()[0]
            trial.start()
            wait_some_time(trial, rng)
        victim = rng.choice(VICTIMS)
        fault = trial.note(f"chaos {number}: {victim}")
        fault.happened.append(strike(trial, victim, rng))
        slurm.start_all()
    assert len(trial.faults) > KILLS / 2  # else it was over too soon
    output = trial.await_end_of_driver()
    while trial.driver.returncode != ENDED:
        assert trial.driver.returncode in (-signal.SIGKILL, 1), output
        trial.start()
        output = trial.await_end_of_driver()
    trial.judge(output)


def wait_some_time(trial: Trial, rng: random.Random) -> None:
    """Until no or one more job has been sent, and some seconds: kills reach all steps, however slow the machine is."""
    jobs = len(trial.slurm.list_jobs()) + rng.choice((0, 1))
    trial.wait_for(lambda: len(trial.slurm.list_jobs()) >= jobs or trial.driver.poll() is not None, "another job")
    time.sleep(rng.uniform(0, 8))


def strike(trial: Trial, victim: str, rng: random.Random) -> str:
    """Kill one of what there is of the victim; what it was."""
    campaign = trial.campaign
    if victim == "driver":
        kill(trial.driver)
        return "kill -9"
    if victim == "Snakemake":
        processes = find_processes(campaign.root)
        kill(*processes)
        return "kill -9, with what it started" if processes else "there was none at this moment"
    if victim == "job":
        jobs = [(rule, process) for rule in RULES for process in campaign.jobs(rule)]
        if not jobs:
            return "there was none at this moment"
        rule, process = rng.choice(jobs)
        kill(process)
        return f"kill -9 of a process of {rule}"
    node = rng.choice(trial.slurm.nodes)
    if victim == "slurmd":
        trial.slurm.kill(node)
        return f"kill -9 of {node}'s; its jobs go on"
    trial.slurm.lose_node(node)
    return f"{node} lost with its jobs"
