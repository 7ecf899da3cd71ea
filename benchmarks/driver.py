"""What driver, Snakemake and `mlip-auto status` cost beside the jobs. One command each:

    .venv/bin/python benchmarks/driver.py plan                            # a generation of 100 to 5,000 structures
    .venv/bin/python benchmarks/driver.py files                           # of 5,000 labels; then `status` and --help
    .venv/bin/python benchmarks/driver.py generation                      # time to the first job, overhead
    .venv/bin/python benchmarks/driver.py generation --profile slurm      # the same on a Slurm, and its polls

`python tests/cluster/mini_slurm.py FOLDER` (as root) brings one up on this machine. Computing time (of a process and
all that it waited for) stands beside wall time: on a shared machine it alone says what a thing costs.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from ase.build import bulk

from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import structure_id, write_structures

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


@dataclass
class Cost:
    """Seconds of wall time and of processors."""

    wall: float = 0.0
    processor: float = 0.0

    def __str__(self) -> str:
        return f"{self.wall:.1f} s, of which {self.processor:.1f} s computing"


@contextmanager
def measure() -> Iterator[Cost]:
    """What the processes cost that are started and waited for in the block."""
    cost, before, started = Cost(), os.times(), time.monotonic()
    yield cost
    after = os.times()
    cost.wall = time.monotonic() - started
    cost.processor = after.children_user + after.children_system - before.children_user - before.children_system


def run_snakemake(root: Path, config: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--quiet", "--snakefile", REPO / "Snakefile"]
    command += ["--directory", root, "--configfile", config, "--profile", REPO / "profiles" / "local", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def run_mlip_auto(*arguments: str | Path, **options: Any) -> int:
    command = [Path(sys.executable).with_name("mlip-auto"), *arguments]
    return subprocess.run(command, stdout=subprocess.DEVNULL, **options).returncode


def measure_plans(shard: int) -> None:
    for structures in (100, 1000, 5000):
        with TemporaryDirectory() as name, measure() as cost:
            run_snakemake(Path(name), write_config(Path(name), structures, shard), "--dry-run")
        print(f"plan of {structures} structures ({-(-structures // shard)} shards): {cost}")


def select(root: Path, count: int) -> None:
    """So many structures as if all of them had been selected: real selections of the tiny campaign are small."""
    rng = np.random.default_rng(7)
    structures = []
    for _ in range(count):
        atoms = bulk("Al", cubic=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info.update(structure_id=structure_id(atoms), generation=0)
        structures.append(atoms)
    write_structures(CampaignPaths(root).generation(0).selected, structures)


def measure_files() -> None:
    """Real labels by EMT, and the files of the campaign then; the last campaign is asked for its status."""
    for structures, shard in ((1000, 100), (5000, 500), (5000, 250)):
        with TemporaryDirectory() as name:
            root = Path(name)
            config = write_config(root, structures, shard)
            select(root, structures)
            target = CampaignPaths().generation(0).labels
            run_snakemake(root, config, target, "--allowed-rules", "label_structures", "collect_labels")
            places = Counter(file.relative_to(root).parts[0] for file in root.rglob("*") if file.is_file())
            snakemake, store = places.pop(".snakemake"), places.pop("store")
            print(
                f"{structures} structures in {-(-structures // shard)} shards: {places.total()} files, {snakemake} of "
                f"Snakemake's own, {store} in the store"
            )
            for arguments in (("status", "--json", "--configfile", config, "--directory", root), ("--help",)):
                with measure() as cost:
                    run_mlip_auto(*arguments)
                print(f"mlip-auto {arguments[0]}: {cost}")


def measure_generation(profile: str | None) -> None:
    """One generation of the tiny campaign, with each call of a Slurm client noted."""
    with TemporaryDirectory() as name:
        root = Path(name)
        config, log, clients = write_config(root, 12, 6), root / "calls", root / "clients"
        clients.mkdir()
        log.touch()
        for client in CLIENTS:
            if (program := shutil.which(client)) is not None:
                (clients / client).write_text(COUNT.format(name=client, log=log, program=program))
                (clients / client).chmod(0o755)
        started = time.time()
        with measure() as cost:
            ended = run_mlip_auto(
                *("run", "--configfile", config, "--directory", root, *(["--profile", profile] if profile else [])),
                env=os.environ | {"PATH": f"{clients}:{os.environ['PATH']}"},
            )
        if ended != 3:  # stopped by loop.max_generations
            sys.exit(f"mlip-auto run ended with exit code {ended}")
        paths = CampaignPaths(root)
        calls = [line.split() for line in log.read_text().splitlines()]
        sent = [float(moment) for moment, client in calls if client == "sbatch"]
        first = min(sent) if profile else read_first_job(paths.snakemake_log(0))
        wall = paths.generation(0).summary.stat().st_mtime - started
        chain = sum(max(read_seconds(root, rule)) for rule in CHAIN)
        polls = Counter(client for moment, client in calls if client in POLLS and float(moment) < started + wall)
    print(f"first job after {first - started:.1f} s")
    print(f"generation: {wall:.1f} s, of its jobs' longest chain {chain:.1f} s: overhead {wall - chain:.1f} s")
    print(f"mlip-auto run: {cost}" + (" (without Slurm's jobs)" if profile else " (with its jobs)"))
    if profile:
        each = ", ".join(f"{client} {number / wall * 60:.1f}" for client, number in sorted(polls.items()))
        print(f"polling calls a minute: {polls.total() / wall * 60:.1f} ({each})")


def read_first_job(log: Path) -> float:
    """When Snakemake started its first job, to the second."""
    moment = next(line for line in log.read_text().splitlines() if line.startswith("["))
    return datetime.strptime(moment, "[%a %b %d %H:%M:%S %Y]").timestamp()


def read_seconds(root: Path, rule: str) -> list[float]:
    """Wall time of each job of the rule, as Snakemake's benchmarks have it."""
    files = (root / "logs" / "gen_000").glob(f"{rule}*.benchmark.tsv")
    return [float(next(csv.DictReader(file.open(), delimiter="\t"))["s"]) for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "files", "generation"))
    parser.add_argument("--profile", help="a Snakemake profile whose executor is slurm")
    parser.add_argument("--shard", type=int, default=20, help="structures a shard, in the plan")
    arguments = parser.parse_args()
    match arguments.what:
        case "plan":
            measure_plans(arguments.shard)
        case "files":
            measure_files()
        case "generation":
            measure_generation(arguments.profile)


if __name__ == "__main__":
    main()
