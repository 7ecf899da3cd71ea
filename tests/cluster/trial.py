"""One campaign under faults: catches its jobs in the middle of their work, and judges at the end what was lost."""

import itertools
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from mini_slurm import MiniSlurm

from campaign import Campaign, signal_all
from mlip_auto.structures import read_json
from tables import Table

Stored = dict[Path, tuple[bytes, int, int]]


@dataclass
class Fault:
    """What was done, the labels that were stored then, and what was seen to happen."""

    name: str
    stored: Stored
    happened: list[str] = field(default_factory=list)


class Trial:
    """A campaign on Slurm whose faults become rows of a table, once it has ended as if there had been none."""

    def __init__(self, slurm: MiniSlurm, campaign: Campaign, undisturbed: Campaign, table: Table):
        self.slurm = slurm
        self.campaign = campaign
        self.undisturbed = undisturbed
        self.table = table
        self.faults: list[Fault] = []
        self.start()

    def start(self) -> None:
        """Start a driver: the first, or the next after a kill."""
        self.started = time.time()
        self.driver = self.campaign.start()

    def catch(self, rule: str) -> list[int]:
        """Wait until jobs of the rule are at work and leave them stopped there; their ids in Slurm.

        A labelling job is caught between two labels. Jobs of earlier attempts are no matter: their processes are gone.
        """
        labels = len(self.campaign.stored())
        self.campaign.wait_until(
            lambda: self.campaign.is_in(rule, 0, self.started) or self.driver.poll() is not None, f"{rule} at work"
        )
        assert self.driver.poll() is None, self.driver.communicate()[0]
        if rule == "label_structures":
            self.campaign.stop_between_labels(labels)
        signal_all(self.campaign.jobs(rule), signal.SIGSTOP)
        return self.caught(rule)

    def caught(self, rule: str) -> list[int]:
        """Ids in Slurm of the rule's jobs that are at work or stopped there."""
        jobs = set()
        for process in self.campaign.jobs(rule):
            with suppress(psutil.NoSuchProcess):
                jobs.add(int(process.environ()["SLURM_JOB_ID"]))
        assert jobs, f"{rule} ended before it could be stopped"
        return sorted(jobs)

    def release(self, rule: str) -> None:
        signal_all(self.campaign.jobs(rule), signal.SIGCONT)

    def note(self, name: str) -> Fault:
        """Call it when the fault is about to be done, while jobs are caught."""
        self.faults.append(Fault(name, self.campaign.stored()))
        return self.faults[-1]

    def sent(self, rule: str) -> list[int]:
        """Ids in Slurm of all jobs of the rule so far."""
        return [job.id for job in self.slurm.list_jobs(self.campaign.root) if job.rule == rule]

    def state(self, job: int) -> str:
        return self.slurm.find_job(job).state

    def await_state(self, job: int, *states: str) -> str:
        """Wait until Slurm has the job in one of these states; which."""
        self.wait_for(lambda: self.state(job) in states, f"job {job} in state {' or '.join(states)}")
        return self.state(job)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """For what Slurm says: it is asked twice a second."""
        self.campaign.wait_until(condition, what, every=0.5)

    def await_line(self, start: str) -> str:
        """The next line of the driver that begins so."""
        return next(line for line in self.driver.stdout if line.startswith(start))

    def await_end_of_driver(self) -> str:
        """What the driver printed, once it has ended."""
        output, _ = self.driver.communicate(timeout=2 * self.campaign.patience)
        return output

    def finish(self, same_potential: bool = True) -> str:
        """Wait for the end and judge it; what the driver printed."""
        output = self.await_end_of_driver()
        self.judge(output, same_potential)
        return output

    def judge(self, output: str, same_potential: bool = True) -> None:
        """Compare the end of the campaign with the undisturbed one, and fill the table.

        Where the potential need not be the same, digit by digit, neither need MD be: it ends in the same way then.
        """
        expected = self.undisturbed.finish()
        assert (self.driver.returncode, output.splitlines()[-1]) == (expected[0], last_line(expected[1], self)), output
        stored = self.campaign.stored()
        selection = self.campaign.selected() == self.undisturbed.selected()
        paid = Counter(self.paid())
        for fault in self.faults:
            lost = [file for file in fault.stored if file not in stored or stored[file][0] != fault.stored[file][0]]
            anew = [file for file, found in fault.stored.items() if file in stored and stored[file] != found]
            twice = len(anew) + sum(count - 1 for count in paid.values())
            numbers = (str(len(fault.stored)), str(len(lost)), str(twice))
            same = "the same" if selection else "ANOTHER"
            self.table.append((fault.name, "; ".join(fault.happened), *numbers, "as undisturbed", same))
            assert not lost and not twice
        assert selection
        parts = slice(None) if same_potential else slice(1)
        assert list_outcomes(self.campaign, parts) == list_outcomes(self.undisturbed, parts)
        assert sorted(file.stem for file in stored) == sorted(self.campaign.records())
        self.check_jobs()

    def check_jobs(self) -> None:
        """None is left, and never did two that write the same files run at the same time."""
        jobs = self.slurm.list_jobs(self.campaign.root)
        assert not any(job.is_live for job in jobs)
        ran = [job for job in jobs if job.started != "N/A"]
        for first, second in itertools.combinations(ran, 2):
            if first.comment == second.comment:
                assert first.ended <= second.started or second.ended <= first.started, (first, second)

    def paid(self) -> list[str]:
        """Ids of the structures that the ledgers say were computed, once for each time."""
        files = self.campaign.paths.results.glob("gen_*/ledger/*.json")
        return [entry["structure_id"] for file in files for entry in read_json(file)]


def list_outcomes(campaign: Campaign, parts: slice) -> list[dict[str, tuple]]:
    """Of outcome, last step and atom of each walker these parts."""
    return [{walker: found[parts] for walker, found in outcomes.items()} for outcomes in campaign.outcomes()]


def last_line(output: str, trial: Trial) -> str:
    """The closing line of the undisturbed campaign as the other one would say it."""
    return output.splitlines()[-1].replace(str(trial.undisturbed.root), str(trial.campaign.root))


def kill(*processes: psutil.Process | subprocess.Popen) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
