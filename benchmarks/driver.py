"""What the driver and Snakemake cost beside the jobs: planning, the first job, a generation's overhead, Slurm's polls.

    .venv/bin/python benchmarks/driver.py                        # planning alone
    .venv/bin/python benchmarks/driver.py --profile slurm        # and one generation on a Slurm

`python tests/cluster/mini_slurm.py FOLDER` (as root) brings one up on this machine.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

REPO = Path(__file__).parents[1]
TINY = REPO / "tests" / "workflow" / "tiny.yaml"
CLIENTS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
POLLS = ("squeue", "sacct", "scontrol")
CHAIN = ("select_structures", "label_structures", "fit_potential", "run_md", "extract_clusters")
# Notes the time and the name of the client, and becomes it.
COUNT = '#!/bin/sh\necho "$(date +%s.%N) {name}" >> {log}\nexec {program} "$@"\n'


def write_config(folder: Path, structures: int, shard: int) -> Path:
    """The tiny campaign with another number of structures, ended after one generation."""
    config = yaml.safe_load(TINY.read_text())
    config["initial"]["structures"][0]["count"] = structures
    config["selection"]["max_structures"] = structures
    config["dft"]["structures_per_shard"] = shard
    config["loop"]["max_generations"] = 1
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def time_plan(structures: int, shard: int) -> tuple[float, float]:
    """Wall and processor time, in s, of a dry run of generation 0."""
    with tempfile.TemporaryDirectory() as name:
        config = write_config(Path(name), structures, shard)
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "--snakefile", REPO / "Snakefile"]
        command += ["--directory", name, "--configfile", config, "--profile", REPO / "profiles" / "local"]
        before, started = os.times(), time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        wall, after = time.monotonic() - started, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def measure_generation(profile: str) -> None:
    """One generation of the tiny campaign on Slurm, with each call of a Slurm client counted."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config, log, clients = write_config(root, 12, 6), root / "calls", root / "clients"
        clients.mkdir()
        for client in CLIENTS:
            if (program := shutil.which(client)) is not None:
                (clients / client).write_text(COUNT.format(name=client, log=log, program=program))
                (clients / client).chmod(0o755)
        command = [Path(sys.executable).with_name("mlip-auto"), "run", "--profile", profile]
        command += ["--configfile", config, "--directory", root]
        environment = os.environ | {"PATH": f"{clients}:{os.environ['PATH']}"}
        started = time.time()
        ended = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode
        if ended != 3:  # stopped by loop.max_generations
            sys.exit(f"mlip-auto run ended with exit code {ended}")
        calls = [line.split() for line in log.read_text().splitlines()]
        first = min(float(moment) for moment, client in calls if client == "sbatch")
        summary = root / "results" / "gen_000" / "summary.json"
        wall = summary.stat().st_mtime - started
        chain = sum(max(read_seconds(root, rule)) for rule in CHAIN)
        polls = Counter(client for moment, client in calls if client in POLLS and float(moment) < started + wall)
    print(f"first job sent after {first - started:.1f} s")
    print(
        f"generation: {wall:.1f} s, of which the longest chain of its jobs {chain:.1f} s: overhead {wall - chain:.1f} s"
    )
    each = ", ".join(f"{client} {number / wall * 60:.1f}" for client, number in sorted(polls.items()))
    print(f"polling calls a minute: {sum(polls.values()) / wall * 60:.1f} ({each})")


def read_seconds(root: Path, rule: str) -> list[float]:
    """Wall time of each job of the rule, as Snakemake's benchmarks have it."""
    files = (root / "logs" / "gen_000").glob(f"{rule}*.benchmark.tsv")
    return [float(next(csv.DictReader(file.open(), delimiter="\t"))["s"]) for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="a Snakemake profile whose executor is slurm")
    parser.add_argument("--shard", type=int, default=20, help="structures a shard")
    arguments = parser.parse_args()
    for structures in (100, 1000, 5000):
        wall, processor = time_plan(structures, arguments.shard)
        shards = -(-structures // arguments.shard)
        print(f"plan of {structures} structures ({shards} shards): {wall:.1f} s, of which {processor:.1f} s computing")
    if arguments.profile:
        measure_generation(arguments.profile)


if __name__ == "__main__":
    main()
