"""MD by the oracle itself: frames against which the true error of a potential is measured."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.units import fs

from mlip_auto.config import CampaignConfig
from mlip_auto.initial import build_source
from mlip_auto.oracles import make_calculator
from mlip_auto.structures import structure_id
from mlip_auto.walkers import find_walker, walker_seed

FRICTION = 0.02 / fs
EQUILIBRATION = 0.2  # of the run, not kept


def make_reference(config: CampaignConfig, walker: str, scratch: Path) -> list[Atoms]:
    """Labelled frames of NVT MD (Langevin) by the oracle, from the walker's structure at its temperature.

    The cell stays that of the walker's structure, for walkers with a pressure too. Never trained on. Files of
    the oracle go to `scratch`.
    """
    settings = config.validation.reference_md
    if settings is None:
        raise ValueError("validation.reference_md: missing; give this section to have a true error")
    spec = find_walker(config, walker)
    seed = walker_seed(config.seed, 0, f"reference {walker}", 0)
    rng = np.random.default_rng(seed)
    atoms = build_source(spec.structure, config.system.elements, config.seed)[0]
    atoms.calc = make_calculator(config.dft, atoms, scratch)
    thermalize_momenta(atoms, temperature_K=spec.temperature, rng=rng)
    dynamics = Langevin(
        atoms, config.exploration.timestep * fs, temperature_K=spec.temperature, friction=FRICTION, fixcm=False, rng=rng
    )
    frames = []
    dynamics.run(round(EQUILIBRATION * settings.steps))
    for _ in range(round((1 - EQUILIBRATION) * settings.steps) // settings.every):
        dynamics.run(settings.every)
        frame = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frame.info.update(structure_id=structure_id(frame), origin=f"oracle MD of {walker}")
        frames.append(frame)
    return frames
