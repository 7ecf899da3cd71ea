"""Speed of the library MD engine against its bare C++ evaluators: `python benchmarks/md_engine.py`.

Al in fcc cells, NVT at 300 K, gamma every 10 steps, skin 1 Å, one thread; CPU µs/atom/step. The engine's time is
that of LAMMPS's own loop over all steps; the bare time is that of the same evaluations (9 plain, 1 with gamma)
on one environment of that run. Goals: a ratio of at most 1.15 from 1,000 atoms on and 1.35 at 256, and a cost linear
in atoms: the last column is the time an atom and step against that of the smallest cell.
"""

import argparse
import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from ase import Atoms
from ase.build import bulk
from pyace.activelearning import (
    compute_A_active_inverse,
    compute_active_set,
    compute_B_projections,
    save_active_inverse_set,
)
from pyace.basis import ACEBBasisSet, BBasisConfiguration
from pyace.multispecies_basisextension import create_multispecies_basis_config

from mlip_auto.lammps_input import InferenceConfig, write_input
from mlip_auto.lammps_library import PaceLammps, join_continued_lines
from mlip_auto.paths import WalkerPaths

GAMMA_EVERY = 10
BASES = {
    68: {"nradmax_by_orders": [15, 3, 2, 2], "lmax_by_orders": [0, 3, 2, 1]},
    500: {"nradmax_by_orders": [15, 6, 4, 3], "lmax_by_orders": [0, 6, 4, 2]},
}


def make_potential(functions: int, directory: Path) -> tuple[Path, Path]:
    """A potential of `functions` functions whose forces are next to nothing, and its active set of rattled cells."""
    config: BBasisConfiguration = create_multispecies_basis_config(
        {
            "deltaSplineBins": 0.001,
            "elements": ["Al"],
            "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1], "ndensity": 1}},
            "bonds": {
                "ALL": {
                    "radbase": "SBessel",
                    "radparameters": [5.25],
                    "rcut": 6.0,
                    "dcut": 0.01,
                    "NameOfCutoffFunction": "cos",
                }
            },
            "functions": {"number_of_functions_per_element": functions, "ALL": BASES[functions]},
        }
    )
    rng = np.random.default_rng(1)
    config.set_all_coeffs(np.concatenate([config.get_all_coeffs()[:-functions], 1e-6 * rng.normal(size=functions)]))
    basis = ACEBBasisSet(config)
    assert len(basis.basis[0]) + len(basis.basis_rank1[0]) == functions
    cells = [make_cell(3, rattle) for rattle in np.linspace(0.05, 0.4, 1 + functions // 50)]
    projections = compute_B_projections(basis, cells)
    inverse = compute_A_active_inverse(compute_active_set(projections))
    potential, active_set = directory / f"{functions}.yaml", directory / f"{functions}.asi"
    config.save(str(potential))
    save_active_inverse_set(str(active_set), inverse, elements_name=basis.elements_name)
    return potential, active_set


def make_cell(repeats: int, rattle: float) -> Atoms:
    atoms = bulk("Al", a=4.05, cubic=True) * (repeats, repeats, repeats)
    atoms.rattle(rattle, seed=1)
    return atoms


def measure(potential: tuple[Path, Path], repeats: int, steps: int, directory: Path) -> tuple[float, float]:
    """CPU µs/atom/step of the engine and of its bare evaluators, best of three turns each."""
    atoms = make_cell(repeats, 0.05)
    run = WalkerPaths(directory)
    inference = InferenceConfig(
        temperature=300, steps=steps, gamma_every=GAMMA_EVERY, uncertainty_threshold=1e9, seed=1
    )
    write_input(run, atoms, *potential, inference)
    engine = PaceLammps(["-log", "none", "-screen", "none"])
    with chdir(directory):
        for line in join_continued_lines(run.input.read_text().split("# fix halt does not")[0]):
            engine.command(line)
        engine.command("run 0 post no")
    engine_seconds, bare_seconds = [], []
    for _ in range(3):
        started = time.process_time()
        engine.command(f"run {steps} pre no post no")
        engine_seconds.append(time.process_time() - started)
        started = time.process_time()
        for step in range(steps):
            engine.evaluators.evaluate(with_gamma=step % GAMMA_EVERY == 0)
        bare_seconds.append(time.process_time() - started)
    engine.lammps.close()
    scale = 1e6 / (len(atoms) * steps)
    return min(engine_seconds) * scale, min(bare_seconds) * scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="10,976 and 19,652 atoms too")
    sizes = {4: 100, 7: 40, 10: 20} | ({14: 10, 17: 10} if parser.parse_args().large else {})
    print("functions   atoms   engine     bare   ratio    goal   growth   (CPU µs/atom/step)")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for functions in BASES:
            potential = make_potential(functions, directory)
            smallest = None
            for repeats, steps in sizes.items():
                engine, bare = measure(potential, repeats, steps, directory)
                smallest = smallest or engine
                atoms = 4 * repeats**3
                goal = 1.15 if atoms >= 1000 else 1.35
                print(
                    f"{functions:9d} {atoms:7d} {engine:8.1f} {bare:8.1f} {engine / bare:7.2f} {goal:7.2f} "
                    f"{engine / smallest:8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
