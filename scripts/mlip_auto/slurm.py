"""The jobs of a campaign in Slurm's queue, by `squeue` and `scancel` alone, which sites without accounting have too.

A job is known by its working folder, which is the campaign's, and by its name, which Snakemake makes: the driver's
prefix `{campaign}_g{generation}` and a UUID, or the UUID alone where a user runs Snakemake in the campaign's folder.
"""

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_ANSWER = 60.0  # s; slurmctld of a busy site may take that long
POLL = 5.0  # s between two looks at the queue
_FORMAT = "%i|%T|%r|%j|%k|%Z"  # id, state, reason, name, comment, working folder
_NAME = re.compile(r"(?:(?P<prefix>.+_g\d{3,})_)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RULE = re.compile(r"(?:rule|group)_(?P<rule>\w+?)(?:_wildcards_.*)?")
_PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


class SlurmMissing(RuntimeError):
    """This machine has no Slurm."""


class SlurmUnreachable(RuntimeError):
    """squeue or scancel failed, or took too long; the message is Slurm's own."""


@dataclass(frozen=True)
class SlurmJob:
    """One job of a campaign.

    Attributes
    ----------
    state
        Slurm's, e.g. PENDING, RUNNING, COMPLETING.
    reason
        Why it pends, e.g. Priority or Resources; None where it does not.
    prefix
        `{campaign}_g{generation}`; empty where no driver sent it.
    """

    id: str
    state: str
    reason: str | None
    prefix: str
    rule: str

    @property
    def pends(self) -> bool:
        return self.state in _PENDING

    @property
    def is_stuck(self) -> bool:
        """Whether Slurm holds it since a node could not start it (slurmctld was away then): it would pend for ever."""
        return self.pends and "requeued held" in (self.reason or "").replace("_", " ")


def name_prefix(campaign: str, generation: int) -> str:
    """What the names of a generation's jobs begin with; the plugin allows 50 letters, digits, `_` and `-`."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', campaign)[:40]}_g{generation:03d}"


def was_used(root: Path) -> bool:
    """Whether Snakemake has sent jobs of this campaign to Slurm: their logs lie there before they are sent."""
    return (root / ".snakemake" / "slurm_logs").is_dir()


def list_jobs(root: Path) -> list[SlurmJob]:
    """The campaign's jobs that pend or run.

    Raises
    ------
    SlurmMissing
        There is no squeue here.
    SlurmUnreachable
        The queue cannot be asked: nothing is known of the jobs.
    """
    said = _ask("squeue", "--noheader", f"--user={os.getuid()}", f"--format={_FORMAT}")
    folder = str(root.resolve())
    jobs = []
    for line in said.splitlines():
        identifier, state, reason, name, comment, work = line.split("|", 5)
        if work == folder and (match := _NAME.fullmatch(name)):
            rule = _RULE.fullmatch(comment)
            pends = state in _PENDING
            jobs.append(
                SlurmJob(
                    identifier, state, reason if pends else None, match["prefix"] or "", rule["rule"] if rule else ""
                )
            )
    return jobs


def cancel_jobs(jobs: Sequence[SlurmJob], only_pending: bool = False) -> None:
    """scancel; with `only_pending` a job that has begun meanwhile goes on."""
    if jobs:
        _ask("scancel", *(["--state=PENDING"] if only_pending else []), *(job.id for job in jobs))


def wait_for_answer(root: Path, report: Callable[[str], None]) -> list[SlurmJob]:
    """`list_jobs`, as soon as Slurm answers; says so where it does not at once."""
    told = False
    while True:
        try:
            return list_jobs(root)
        except SlurmUnreachable as error:
            if not told:
                report(f"{error}; waiting until Slurm answers")
            told = True
            time.sleep(POLL)


def settle_jobs(root: Path, report: Callable[[str], None]) -> None:
    """Wait until no job of the campaign is in the queue: what a killed driver's Snakemake left there.

    Such a job writes the files that its successor would write at the same time. One that runs may end, since it is paid
    for and its files count; one that pends is cancelled, since Snakemake sends it again. A job that no driver sent is
    its user's, who alone may cancel it.
    """
    told = ""
    while jobs := wait_for_answer(root, report):
        pending = [job for job in jobs if job.pends and job.prefix]
        cancel_jobs(pending, only_pending=True)
        waited_for = [job for job in jobs if job not in pending]
        text = f"{describe_jobs(waited_for)} in the queue: waiting until they have ended" if waited_for else ""
        if pending:
            text = f"cancelled {describe_jobs(pending)} that had not begun (to be sent again)" + (text and f"; {text}")
        if text and text != told:
            report(f"Left by an earlier run: {text}.")
        told = text
        time.sleep(POLL)


def describe_jobs(jobs: Sequence[SlurmJob]) -> str:
    """For people: how many, of which rules, and their ids."""
    rules = ", ".join(f"{number} {rule}" for rule, number in sorted(Counter(job.rule for job in jobs).items()))
    return f"{len(jobs)} Slurm job{'s' if len(jobs) != 1 else ''} ({rules}: {', '.join(job.id for job in jobs)})"


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise SlurmMissing(f"no {command[0]} on this machine; jobs of the campaign were sent to Slurm or are to be")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_ANSWER)
    except subprocess.TimeoutExpired:
        raise SlurmUnreachable(f"{command[0]} did not answer in {LONGEST_ANSWER:g} s") from None
    if done.returncode != 0:
        raise SlurmUnreachable(" ".join(f"{command[0]} failed: {done.stderr}".split()))
    return done.stdout
