"""The campaign lock and the end of orphans, with real processes that are really killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from mlip_auto.campaign_lock import LONGEST_SILENCE, hold_lock, read_live_owner
from mlip_auto.processes import (
    CampaignLocked,
    Owner,
    end_orphans,
    find_orphans,
    find_processes,
    find_snakemake,
    start_ticks,
    tagged_environment,
)

HOLD = """
    import subprocess, sys, time
    from pathlib import Path
    from mlip_auto.campaign_lock import hold_lock
    from mlip_auto.processes import tagged_environment
    root = Path(sys.argv[1])
    with hold_lock(root / "lock", root) as owner:
        # A grandchild in a session of its own: no process group and no parent leads to it once the driver is gone.
        subprocess.Popen(["setsid", "sh", "-c", "sleep 300 & wait"], env=tagged_environment(root, owner))
        print("held", flush=True)
        time.sleep(300)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def driver(tmp_path):
    process = start(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    wait_until(lambda: len(find_processes(tmp_path)) == 2)  # the shell and its sleep
    yield process
    process.kill()
    process.wait()
    end_orphans(tmp_path)


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_second_driver_is_refused_and_told_of_the_first(driver, tmp_path):
    with pytest.raises(CampaignLocked, match=f"pid {driver.pid}"), hold_lock(tmp_path / "lock", tmp_path):
        pass
    assert read_live_owner(tmp_path / "lock").pid == driver.pid
    assert find_orphans(tmp_path) == []  # the children of a live driver are not touched
    assert len(find_processes(tmp_path)) == 2


def test_after_sigkill_the_next_driver_ends_the_orphans_and_takes_over(driver, tmp_path):
    orphans = find_processes(tmp_path)
    driver.kill()
    # Not waited for: a zombie does not hold the campaign.
    wait_until(lambda: psutil.Process(driver.pid).status() == psutil.STATUS_ZOMBIE)
    assert read_live_owner(tmp_path / "lock") is None
    with hold_lock(tmp_path / "lock", tmp_path) as owner:
        assert json.loads((tmp_path / "lock").read_text()) == asdict(owner)
        assert all(start_ticks(orphan.pid) == -1 for orphan in orphans)
        assert find_processes(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_orphans_of_another_campaign_are_left_alone(driver, tmp_path):
    driver.kill()
    wait_until(lambda: len(find_orphans(tmp_path)) == 2)
    other = tmp_path / "other"
    assert end_orphans(other) == []
    assert len(find_orphans(tmp_path)) == 2


@pytest.mark.parametrize(
    "change",
    [{"pid": 2**22 - 1}, {"started": 12345}, {"boot": "another"}],
    ids=["pid is gone", "pid came again", "host was rebooted"],
)
def test_a_stale_lock_is_taken_over(tmp_path, change):
    stale = replace(Owner.this_process(), **change)
    (tmp_path / "lock").write_text(json.dumps(asdict(stale)))
    with hold_lock(tmp_path / "lock", tmp_path) as owner:
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid() == owner.pid


def test_a_lock_that_another_took_meanwhile_is_not_given_back(tmp_path):
    lock = tmp_path / "lock"
    other = replace(Owner.this_process(), host="login2.example", pid=4242)
    with (
        pytest.raises(CampaignLocked, match=r"taken over by pid 4242 on login2\.example"),
        hold_lock(lock, tmp_path),
    ):
        lock.write_text(json.dumps(asdict(other)))
    assert json.loads(lock.read_text()) == asdict(other)


def write_lock_of_another_host(lock: Path, silence: float) -> Owner:
    """A lock file whose driver gave its last sign of life so many seconds ago."""
    elsewhere = replace(Owner.this_process(), host="login2.example", pid=4242)
    lock.write_text(json.dumps(asdict(elsewhere)))
    then = lock.stat().st_mtime - silence
    os.utime(lock, (then, then))
    return elsewhere


def test_a_lock_of_another_host_is_respected_while_it_gives_signs_of_life(tmp_path):
    lock = tmp_path / "lock"
    elsewhere = write_lock_of_another_host(lock, LONGEST_SILENCE / 2)
    message = r"pid 4242 on login2\.example.*After 10 min without a sign of life"
    with pytest.raises(CampaignLocked, match=message), hold_lock(lock, tmp_path):
        pass
    assert read_live_owner(lock) == elsewhere
    assert list(tmp_path.iterdir()) == [lock]


def test_a_lock_of_another_host_is_taken_over_after_a_long_silence(tmp_path):
    lock = tmp_path / "lock"
    write_lock_of_another_host(lock, LONGEST_SILENCE + 1)
    assert read_live_owner(lock) is None
    with hold_lock(lock, tmp_path) as owner:
        assert json.loads(lock.read_text()) == asdict(owner)
    assert list(tmp_path.iterdir()) == []


def test_a_driver_of_another_host_that_was_suspended_gives_way(tmp_path):
    """A process in a namespace with a host name of its own; signs of life come faster than in earnest."""
    code = """
        import sys, time
        from pathlib import Path
        from mlip_auto import campaign_lock
        from mlip_auto.snakemake_run import raise_on_signals
        campaign_lock.HEARTBEAT = 0.05
        root = Path(sys.argv[1])
        with raise_on_signals(), campaign_lock.hold_lock(root / "lock", root):
            print("held", flush=True)
            time.sleep(300)
    """
    namespace = ["unshare", "--user", "--map-root-user", "--uts"]
    if subprocess.run([*namespace, "hostname", "login1"]).returncode != 0:
        pytest.skip("this system allows no namespaces to its users")
    command = ["sh", "-c", 'hostname login1 && exec "$@"', "sh", sys.executable, "-c", textwrap.dedent(code), tmp_path]
    holder = subprocess.Popen([*namespace, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lock = tmp_path / "lock"

    def fall_silent() -> None:
        os.utime(lock, (0, 0))

    try:
        assert holder.stdout.readline() == "held\n"
        fall_silent()
        wait_until(lambda: lock.stat().st_mtime > 0)
        assert read_live_owner(lock).host == "login1"
        holder.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_STOPPED)
        fall_silent()
        with hold_lock(lock, tmp_path) as owner:
            holder.send_signal(signal.SIGCONT)
            _, errors = holder.communicate(timeout=60)
            assert f"was taken over by pid {owner.pid} on {owner.host}" in errors
            assert json.loads(lock.read_text()) == asdict(owner)
    finally:
        holder.kill()
        holder.wait()


def test_one_of_many_drivers_takes_a_stale_lock(tmp_path):
    (tmp_path / "lock").write_text(json.dumps(asdict(replace(Owner.this_process(), started=1))))
    code = """
        import sys, time
        from pathlib import Path
        from mlip_auto.campaign_lock import hold_lock
        from mlip_auto.processes import CampaignLocked
        root = Path(sys.argv[1])
        time.sleep(max(0, float(sys.argv[2]) - time.time()))
        try:
            with hold_lock(root / "lock", root):
                print("held", flush=True)
                sys.stdin.read()  # until the test has heard all
        except CampaignLocked:
            print("refused", flush=True)
    """
    drivers = [start(code, tmp_path, time.time() + 1.5) for _ in range(6)]
    answers = sorted(driver.stdout.readline().strip() for driver in drivers)
    for driver in drivers:
        driver.communicate(timeout=30)
    assert answers == ["held"] + ["refused"] * 5


def test_a_job_dies_with_its_parent(tmp_path):
    job = "import time; from mlip_auto.processes import *; die_with_parent(); print(flush=True); time.sleep(300)"
    code = """
        import subprocess, sys, time
        job = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
        job.stdout.readline()
        print(job.pid, flush=True)
        time.sleep(300)
    """
    parent = start(code, job)
    child = int(parent.stdout.readline())
    assert start_ticks(child) > 0
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: start_ticks(child) == -1)


def test_processes_of_a_slurm_job_are_left_to_slurm(tmp_path):
    """sbatch passes the tags on; on a cluster of one machine the job's processes would be found by them."""
    gone = replace(Owner.this_process(), pid=2**22 - 1)
    environment = tagged_environment(tmp_path, gone)
    own, job = (subprocess.Popen(["sleep", "300"], env=environment | extra) for extra in ({}, {"SLURM_JOB_ID": "4242"}))
    try:
        wait_until(lambda: [process.pid for process in find_orphans(tmp_path)] == [own.pid])
        end_orphans(tmp_path)
        assert own.wait(timeout=30) == -signal.SIGTERM
        assert job.poll() is None
    finally:
        for process in (own, job):
            process.kill()
            process.wait()


def test_a_users_own_snakemake_is_seen(tmp_path):
    (tmp_path / "Snakefile").write_text('rule all:\n    shell: "sleep 300"\n')
    assert find_snakemake(tmp_path) is None
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "1",
        "--directory",
        tmp_path,
        "--snakefile",
        tmp_path / "Snakefile",
    ]
    environment = tagged_environment(
        tmp_path, replace(Owner.this_process(), pid=2**22 - 1)
    )  # so that all of it can be ended
    snakemake = subprocess.Popen(command, cwd=Path("/"), env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: find_snakemake(tmp_path) is not None, seconds=30)
        assert find_snakemake(tmp_path).pid == snakemake.pid
    finally:
        end_orphans(tmp_path)
        snakemake.wait()
