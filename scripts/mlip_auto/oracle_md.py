"""MD by the oracle itself: the reference of the true error, and melts."""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.units import fs

FRICTION = 0.02 / fs


def iterate_frames(
    atoms: Atoms, temperature: float, timestep: float, first: int, every: int, rng: np.random.Generator
) -> Iterator[int]:
    """NVT MD (Langevin) of `atoms` with its own calculator; yields the step at `first` and then at each `every`.

    Between two steps `atoms` is the frame. Temperature in K, `timestep` in fs.
    """
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(atoms, timestep * fs, temperature_K=temperature, friction=FRICTION, fixcm=False, rng=rng)
    step = first
    dynamics.run(first)
    while True:
        yield step
        dynamics.run(every)
        step += every
