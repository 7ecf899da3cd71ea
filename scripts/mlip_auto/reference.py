"""MD by the oracle itself: frames against which the true error of a potential is measured."""

from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlip_auto.config import CampaignConfig
from mlip_auto.oracle_md import iterate_frames
from mlip_auto.oracles import make_calculator
from mlip_auto.starts import build_start
from mlip_auto.structures import structure_id
from mlip_auto.walkers import find_walker, walker_seed


def make_reference(config: CampaignConfig, walker: str, scratch: Path) -> list[Atoms]:
    """Labelled frames of NVT MD (Langevin) by the oracle, from the walker's structure at its highest temperature.

    The cell stays that of the walker's structure, for walkers with a pressure or a deformation too; in place of one
    from the data set it is an undistorted structure of generation 0. Never trained on. Files of the oracle go to
    `scratch`.
    """
    settings = config.validation.reference_md
    if settings is None:
        raise ValueError("validation.reference_md: missing; give this section to have a true error")
    spec = find_walker(config, walker)
    seed = walker_seed(config.seed, 0, f"reference {walker}", 0)
    rng = np.random.default_rng(seed)
    atoms = build_start(config, spec)
    atoms.calc = make_calculator(config.dft, atoms, scratch)
    first = settings.equilibration + settings.every
    md = iterate_frames(atoms, spec.hottest, config.exploration.timestep, first, settings.every, rng)
    frames = []
    for _ in islice(md, settings.n_frames):
        frame = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frame.info.update(structure_id=structure_id(frame), origin=f"oracle MD of {walker}")
        frames.append(frame)
    return frames
