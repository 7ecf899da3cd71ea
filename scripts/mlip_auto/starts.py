"""Where a walker starts: a crystal, a file, or a structure of the campaign's own data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.initial_sources import build_source
from mlip_auto.neighbours import cell_heights
from mlip_auto.structures import get_energy_weight, read_structures
from mlip_auto.walkers import WalkerSpec


def build_start(
    config: CampaignConfig, walker: WalkerSpec, labels: Sequence[Path] = (), directory: Path = Path()
) -> Atoms:
    """Start structure of a walker.

    One from the data set is drawn by the walker's seed among the labels that are periodic along all three vectors and
    trained on as a whole, and repeated until opposite faces are twice the cutoff apart. Without labels (none exists
    before generation 0) it is drawn among the undistorted structures of `initial.structures`.

    Parameters
    ----------
    labels
        Files of the campaign's labels so far.
    directory
        Relative names of structure files start here.

    Raises
    ------
    ValueError
        A source that cannot be built, or no label that a walker could start from.
    """
    source = walker.structure
    if not source.data_set:
        return build_source(source, config.system.elements, config.seed, directory)[0]
    if labels:
        pool = [atoms for file in labels for atoms in read_structures(file) if get_energy_weight(atoms) > 0]
    else:
        pool = [
            atoms
            for family in config.initial.structures
            for atoms in build_source(family, config.system.elements, config.seed, directory)
        ]
    periodic = [atoms for atoms in pool if atoms.pbc.all()]
    if not periodic:
        raise ValueError(
            f"data_set: none of {len(pool)} structures is periodic along all three vectors and trained on as a whole; "
            "give a prototype or a file"
        )
    drawn = periodic[np.random.default_rng(walker.seed).integers(len(periodic))]
    start = Atoms(drawn.numbers, positions=drawn.positions, cell=drawn.cell, pbc=True).repeat(source.supercell)
    widths = cell_heights(start.cell[:])
    return start.repeat(np.ceil(2 * config.training.basis.cutoff / widths - 1e-9).astype(int))
