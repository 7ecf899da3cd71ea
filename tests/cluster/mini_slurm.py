"""A real Slurm on loopback: slurmctld and virtual nodes of this machine, without systemd, munge, cgroups or accounting.

`python tests/cluster/mini_slurm.py FOLDER` runs one until Ctrl-C, to try a campaign or a profile by hand (as root).
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from mlip_auto.processes import die_with_parent, end_processes

CONFIG_LINK = Path("/etc/slurm/slurm.conf")  # the executor's job step drops SLURM_CONF, so the config must be here
PORT = 16817
PATIENCE = 60.0  # s for a daemon to come or go, on a busy machine

# jobacct_gather/linux counts resident memory once a second and kills a job above its request. Finished jobs stay in
# squeue for ten hours: the record of what ran. cred_expire: a job whose node died is sent again after this, not 2 min.
CONFIG = """
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
EnforcePartLimits=ALL
KillWait=3
MinJobAge=36000
SlurmdTimeout=10
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,sched_interval=1,bf_interval=1
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
"""


@dataclass(frozen=True)
class SlurmJob:
    """A line of squeue; finished jobs too. `started` and `ended` are times in ISO 8601, N/A before."""

    id: int
    name: str
    state: str
    comment: str
    nodes: str
    started: str
    ended: str
    folder: Path

    @property
    def rule(self) -> str:
        return self.comment.removeprefix("rule_").partition("_wildcards_")[0]

    @property
    def is_live(self) -> bool:
        return self.state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


def find_obstacle() -> str:
    """Why a MiniSlurm cannot run here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [name for name in ("slurmctld", "slurmd", "squeue") if shutil.which(name) is None]:
        return f"needs {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client"
    # A link that leads nowhere is what a killed MiniSlurm left.
    if CONFIG_LINK.exists() and not (CONFIG_LINK.is_symlink() and _has_ended(CONFIG_LINK.resolve().parent)):
        return f"{CONFIG_LINK} is there: this machine has a Slurm of its own"
    return ""


def _has_ended(folder: Path) -> bool:
    """The MiniSlurm of this folder has no slurmctld any more."""
    try:
        return psutil.Process(int((folder / "slurmctld.pid").read_text())).status() == psutil.STATUS_ZOMBIE
    except (FileNotFoundError, psutil.NoSuchProcess):
        return True


class MiniSlurm:
    """slurmctld and some slurmd, each with two virtual CPUs and 16 GB; a context manager.

    The daemons are children that the kernel ends with this process, however it ends. At the end of the context daemons
    and jobs are ended by their pids, in whatever state a test has left them.
    """

    def __init__(self, folder: Path, nodes: int = 2):
        self.folder = folder
        self.config = folder / "slurm.conf"
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "MiniSlurm":
        host = socket.gethostname().partition(".")[0]
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        lines = [CONFIG.format(host=host, port=PORT, folder=self.folder)]
        for number, node in enumerate(self.nodes, start=1):
            address = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={PORT + 10 + number}"
            lines.append(f"NodeName={node} {address} CPUs=2 RealMemory=16000 State=UNKNOWN\n")
        lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n")
        self.config.write_text("".join(lines))
        CONFIG_LINK.unlink(missing_ok=True)
        CONFIG_LINK.symlink_to(self.config)
        try:
            self.start_all()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def _stop(self) -> None:
        end_processes([psutil.Process(daemon.pid) for daemon in self._daemons.values() if daemon.poll() is None])
        # Each node has a socket for every step of a job: {node}_{job}.{step}
        sockets = [file.name for node in self.nodes for file in self.folder.glob(f"spool.{node}/{node}_*.*")]
        jobs = {int(name.partition("_")[2].partition(".")[0]) for name in sockets}
        while kill_processes(jobs):
            time.sleep(0.1)
        CONFIG_LINK.unlink()

    def start_all(self) -> None:
        """Start what does not run, and wait until every node takes jobs."""
        for name in ("slurmctld", *self.nodes):
            if name not in self._daemons or self._daemons[name].poll() is not None:
                self.start(name)
        self._await(lambda: self._idle_nodes() == set(self.nodes), "all nodes", self._describe)

    def start(self, name: str) -> None:
        """Start slurmctld or the slurmd of a node."""
        command = ["slurmctld"] if name == "slurmctld" else ["slurmd", "-N", name]
        with (self.folder / f"{name}.log").open("a") as log:
            self._daemons[name] = subprocess.Popen(
                [*command, "-D", "-f", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )

    def kill(self, name: str) -> None:
        """SIGKILL of slurmctld or of one slurmd; the jobs of the node go on."""
        self._daemons[name].kill()
        self._daemons[name].wait(PATIENCE)

    def lose_node(self, node: str) -> None:
        """What a power cut does: its slurmd, the job steps and all processes of its jobs end at once."""
        self.kill(node)
        kill_processes({job.id for job in self.list_jobs() if job.is_live and job.nodes == node})

    def save_state(self, job: int) -> None:
        """Wait until slurmctld has written down what it knows of a job, which it does some seconds after each change.

        Killed before it would come back with a job that pends, and would end the one that runs to start it again.
        """
        mark = f"saved-{time.time_ns()}"
        self.call("scontrol", "update", f"JobId={job}", f"AdminComment={mark}")
        self._await(lambda: self._has_saved(mark), "the saved state")

    def _has_saved(self, mark: str) -> bool:
        try:
            return mark.encode() in (self.folder / "state" / "job_state").read_bytes()
        except FileNotFoundError:
            return False  # between two renames

    def list_jobs(self, folder: Path | None = None) -> list[SlurmJob]:
        """All jobs, finished ones too, in the order of their ids; of one working directory where it is given."""
        lines = self.call(
            "squeue", "--noheader", "--states=all", "--sort=i", "--format=%i|%j|%T|%k|%N|%S|%e|%Z"
        ).splitlines()
        fields = [line.split("|", 7) for line in lines]
        jobs = [SlurmJob(int(field[0]), *field[1:7], Path(field[7])) for field in fields]
        return [job for job in jobs if folder is None or job.folder == folder.resolve()]

    def find_job(self, identifier: int) -> SlurmJob:
        return next(job for job in self.list_jobs() if job.id == identifier)

    @staticmethod
    def call(*command: str) -> str:
        """A command of Slurm, again while slurmctld does not answer; what it prints."""
        deadline = time.monotonic() + PATIENCE
        while (done := subprocess.run(command, capture_output=True, text=True)).returncode != 0:
            assert time.monotonic() < deadline, f"{' '.join(command)}: {done.stderr}"
            time.sleep(0.2)
        return done.stdout

    def _idle_nodes(self) -> set[str]:
        lines = self.call("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return {node for node, state in map(str.split, lines) if state in ("idle", "mixed", "allocated")}

    def _describe(self) -> str:
        logs = [(self.folder / f"{name}.log").read_text()[-2000:] for name in self._daemons]
        return "\n".join([self.call("sinfo", "--Node", "--long"), *logs])

    @staticmethod
    def _await(condition: Callable[[], bool], what: str, describe: Callable[[], str] = str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"Slurm: waited in vain for {what}\n{describe()}"
            time.sleep(0.1)


def kill_processes(jobs: set[int]) -> int:
    """SIGKILL to all processes of these jobs, their steps' slurmstepd too; how many there were."""
    found = [process for process in psutil.process_iter() if _find_job(process) in jobs]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return len(found)


def _find_job(process: psutil.Process) -> int | None:
    """The job that a process works for."""
    try:
        if step := re.match(r"slurmstepd: \[(\d+)\.", " ".join(process.cmdline())):
            return int(step[1])
        job = process.environ().get("SLURM_JOB_ID")
    except psutil.Error:
        return None
    return int(job) if job else None


if __name__ == "__main__":
    if obstacle := find_obstacle():
        sys.exit(obstacle)
    with MiniSlurm(Path(sys.argv[1]).resolve()) as slurm:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        print(f"Slurm runs with nodes {', '.join(slurm.nodes)}, partition main; Ctrl-C stops it.", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
