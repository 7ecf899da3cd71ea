"""How many labels end well without a person: `python benchmarks/scf_campaign.py --count 60` (real pw.x).

Al and Si cells of 1 to 4 atoms, strained by up to 15 % and rattled by up to 0.5 Å, drawn with the distance guard of
generation 0. Each is labelled as a campaign does, under two settings: sound ones, and careless ones (few SCF steps,
much mixing, little smearing, a tight threshold), which need the recovery ladder.
"""

import argparse
import os
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from ase import Atoms
from ase.build import bulk

from mlip_auto.config_dft import Dft
from mlip_auto.distances import allowed_distances, find_too_close
from mlip_auto.initial_disorder import distort
from mlip_auto.labelling import LabelledShard, label_structures
from mlip_auto.recovery import FIRST
from mlip_auto.structures import structure_id

STRAIN, RATTLES = 0.15, (0.05, 0.1, 0.2, 0.35, 0.5)
CRYSTALS = {
    "Al": [bulk("Al", a=3.97), bulk("Al", a=3.97) * (2, 1, 1), bulk("Al", a=3.97, cubic=True)],
    "Si": [bulk("Si", a=5.38), bulk("Si", a=5.38) * (2, 1, 1)],
}
SMEARING = {"ecutwfc": 18, "occupations": "smearing", "smearing": "mv"}
SETTINGS = {
    "sound": {**SMEARING, "degauss": 0.03, "conv_thr": 1e-8},
    "careless": {**SMEARING, "degauss": 0.002, "conv_thr": 1e-10, "mixing_beta": 0.95, "electron_maxstep": 8},
}


def make_structures(count: int, seed: int) -> list[Atoms]:
    """`count` distorted cells, Al and Si by turns, all sources and rattles equally often."""
    rng = np.random.default_rng(seed)
    allowed = allowed_distances(list(CRYSTALS), {})
    structures = []
    for number in range(count):
        element = list(CRYSTALS)[number % 2]
        turn = number // 2
        crystal = CRYSTALS[element][turn % len(CRYSTALS[element])]
        rattle = RATTLES[turn % len(RATTLES)]
        while True:
            atoms = distort(crystal, STRAIN, STRAIN, {element: rattle}, 0, rng)
            if find_too_close(atoms, allowed) is None:
                break
        atoms.info.update(structure_id=structure_id(atoms), generation=0)
        structures.append(atoms)
    return structures


def run(structures: list[Atoms], dft: Dft, cores: int) -> list[dict]:
    """The record of each structure."""
    shards = [structures[number::cores] for number in range(cores)]
    with ProcessPoolExecutor(cores) as pool:
        labelled: list[LabelledShard] = list(pool.map(label_structures, shards, [dft] * cores))
    return [record for shard in labelled for record in shard.records.values()]


def report(name: str, records: list[dict]) -> None:
    """Print what became of the structures."""
    made = [record for record in records if record["status"] == "completed"]
    rescued = Counter(record["rungs"][-1]["rung"] for record in made if record["rungs"][-1]["rung"] != FIRST)
    tried = Counter(rung["rung"] for record in records for rung in record["rungs"])
    lost = Counter(record["reason"].split("\n")[0][:90] for record in records if record["status"] != "completed")
    runs = sum(tried.values())
    print(f"\n{name}: {len(records)} structures, {runs} runs of pw.x, {sum(r['seconds'] for r in records):.0f} core-s")
    print(f"  trusted labels without a person: {len(made)} ({len(made) / len(records):.1%})")
    print(f"  at the first try: {len(made) - sum(rescued.values())} of {tried[FIRST]}")
    for rung, number in tried.items():
        if rung != FIRST:
            print(f"  rescued by {rung}: {rescued[rung]} of {number} tries")
    for reason, number in lost.most_common():
        print(f"  no label, {number} times: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="structures for each of the two settings")
    parser.add_argument("--cores", type=int, default=2, help="runs of pw.x at once")
    parser.add_argument("--pseudo-folder", type=Path, default=Path("/usr/share/espresso/pseudo"))
    arguments = parser.parse_args()
    structures = make_structures(arguments.count, seed=2026)
    with tempfile.TemporaryDirectory() as folder:
        for name, parameters in SETTINGS.items():
            dft = Dft(
                code="espresso",
                parameters=parameters,
                kspacing=0.45,
                pseudo_folder=arguments.pseudo_folder,
                pseudopotentials={"Al": "Al.pz-vbc.UPF", "Si": "Si.pz-vbc.UPF"},
                store=Path(folder) / "store",
            )
            report(name, run(structures, dft, arguments.cores))


if __name__ == "__main__":
    main()
