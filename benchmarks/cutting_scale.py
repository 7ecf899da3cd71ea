"""CPU and memory of reading the last frame of a dump and cutting 100 clusters: `python benchmarks/cutting_scale.py`.

Hot fcc Al, cubic and triclinic; clusters of R = 12 Å around random atoms. Each row is a process of its own, whose peak
memory is counted above what its imports take. A dump holds 20 frames: 1.1 GB on disk at 10⁶ atoms.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import bulk

from mlip_auto.cutting import ParentFrame
from mlip_auto.extractor import EmbeddingExtractor
from mlip_auto.lammps_output import read_last_frames

FRAMES = 20
CLUSTERS, CORE, BUFFER = 100, 6.0, 6.0  # Å
SHEAR = 0.3


def write_dump(path: Path, repeats: int, triclinic: bool) -> int:
    """A dump of hot fcc Al in the format of the walkers, FRAMES frames; the number of its atoms."""
    atoms = bulk("Al", "fcc", a=4.05, cubic=True).repeat(repeats)
    rng = np.random.default_rng(0)
    atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    if triclinic:
        atoms.set_cell(atoms.cell[:] @ [[1, 0, 0], [SHEAR, 1, 0], [0, 0, 1]], scale_atoms=True)
    atoms.wrap()
    length, tilt = repeats * 4.05, SHEAR * repeats * 4.05
    if triclinic:
        box = f"ITEM: BOX BOUNDS xy xz yz pp pp pp\n0 {length + tilt:.10g} {tilt:.10g}\n" + 2 * f"0 {length:.10g} 0\n"
    else:
        box = "ITEM: BOX BOUNDS pp pp pp\n" + 3 * f"0 {length:.10g}\n"
    order = rng.permutation(len(atoms))  # LAMMPS sorts its atoms in space
    gamma = rng.exponential(1.0, len(atoms))
    body = "".join(
        f"{i + 1} Al {x:.10g} {y:.10g} {z:.10g} {g:.6g}\n"
        for i, (x, y, z), g in zip(order.tolist(), atoms.positions[order].tolist(), gamma[order].tolist(), strict=True)
    )
    with path.open("w") as file:
        for step in range(0, 10 * FRAMES, 10):
            file.write(f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n{box}")
            file.write(f"ITEM: ATOMS id element x y z f_gamma\n{body}")
    return len(atoms)


def read_peak() -> float:
    """Largest resident size of this process so far, MB; `ru_maxrss` would begin with that of the parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(dump: Path) -> None:
    """Print CPU seconds of reading and of cutting, and MB above start."""
    extractor = EmbeddingExtractor("cluster", CORE, CORE, BUFFER, CORE, 6.0, {("Al", "Al"): 1.0}, max_atoms=10_000)
    at_start = read_peak()
    started = time.process_time()
    (frame,) = read_last_frames(dump)
    read = time.process_time()
    parent = ParentFrame(frame)
    centers = np.random.default_rng(1).choice(len(frame), CLUSTERS, replace=False)
    sizes = [len(extractor.extract_cluster(parent, int(center)).atoms) for center in centers]
    cut = time.process_time()
    seconds = " ".join(f"{value:9.2f}" for value in (read - started, cut - read, cut - started))
    print(f"{seconds} {read_peak() - at_start:9.0f} {np.mean(sizes):9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, nargs="+", default=[29, 42, 63], help="fcc cells along each axis")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    print("    atoms  cell        read/s     cut/s   total/s  MB above  atoms a cluster")
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "dump.lammpstrj"
        for repeats in options.repeats:
            for triclinic in (False, True):
                number = write_dump(dump, repeats, triclinic)
                print(f"{number:9d}  {'triclinic' if triclinic else 'cubic':9s}", end=" ", flush=True)
                subprocess.run([sys.executable, __file__, "--measure", dump], check=True)


if __name__ == "__main__":
    main()
