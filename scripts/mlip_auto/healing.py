"""The faces of a box after the cut: its outer shell is relaxed with the current potential, then warmed again."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import FIRE
from ase.units import fs

from mlip_auto.cut_audit import Audit
from mlip_auto.cutting import ExtractedStructure
from mlip_auto.fitted_potential import FittedPotential
from mlip_auto.neighbours import cell_heights

ROUNDS = 4
STEPS_A_ROUND = 10
FACE_DEPTH = 1.0  # Å: deeper, a wide box stays as it is, or its core would feel all around it moved
LARGEST_STEP = 0.1  # Å
STILL = 0.05  # eV/Å: nothing is left to relax
EQUILIBRATION = 120.0  # fs
FRICTION = 0.02  # 1/fs


def heal(
    cut: ExtractedStructure,
    potential: FittedPotential,
    frozen_radius: float,
    audit: Callable[[ExtractedStructure], Audit],
    *,
    temperature: float,
    timestep: float,
    seed: Sequence[int],
) -> tuple[ExtractedStructure, Audit]:
    """The cut with its faces healed, and its audit.

    A box is relaxed round by round until it passes the audit and no boundary atom is above the threshold: not to rest,
    for the more its shell is cooled, the further the forces on the core are from those in the frame. Of all rounds
    that with the fewest problems, then the fewest boundary atoms above the threshold, then the smallest change of
    force. Where the shell is trained on, it then gets the disorder of the frame's temperature by a short MD, unless
    that spoils the audit. The shell of a wide box begins `FACE_DEPTH` below its nearest face. A cluster, or the whole
    frame, stays as it is.

    Parameters
    ----------
    frozen_radius
        Atoms within it (Å) of the centre are never moved.
    temperature, timestep, seed
        Of the short MD: K, fs, of its velocities and noise.
    """
    if not cut.has_faces:
        return cut, audit(cut)
    still = max(frozen_radius, cell_heights(cut.atoms.cell[:]).min() / 2 - FACE_DEPTH)
    shell = np.linalg.norm(cut.vectors(), axis=1) >= still
    found = [(cut, audit(cut))]
    while len(found) <= ROUNDS and (found[-1][1].problems or found[-1][1].boundary_above):
        relaxed = relax_shell(found[-1][0], potential, shell)
        found.append((relaxed, audit(relaxed)))
    best = min(found, key=lambda one: (*_faults(one[1]), one[1].force_change))
    if not cut.force_mask[shell].any():
        return best
    at_rest = relax_shell(best[0], potential, shell)  # lest strained faces heat it
    warm = equilibrate_shell(at_rest, potential, shell, temperature, timestep, seed)
    audited = audit(warm)
    return (warm, audited) if _faults(audited) <= _faults(best[1]) else best


def _faults(audit: Audit) -> tuple[int, int]:
    return len(audit.problems), audit.boundary_above


def relax_shell(cut: ExtractedStructure, potential: FittedPotential, shell: np.ndarray) -> ExtractedStructure:
    """A copy with the atoms of `shell` (shape=(n_atoms,), bool) relaxed by a few short steps; the cell stays."""
    atoms = _free_shell(cut, potential, shell)
    FIRE(atoms, logfile=None, maxstep=LARGEST_STEP).run(fmax=STILL, steps=STEPS_A_ROUND)
    return _replace_positions(cut, atoms)


def equilibrate_shell(
    cut: ExtractedStructure,
    potential: FittedPotential,
    shell: np.ndarray,
    temperature: float,
    timestep: float,
    seed: Sequence[int],
) -> ExtractedStructure:
    """A copy whose shell went through Langevin dynamics of `EQUILIBRATION` at `temperature` (K), `timestep` in fs."""
    rng = np.random.default_rng(seed)
    atoms = _free_shell(cut, potential, shell)
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(
        atoms, timestep * fs, temperature_K=temperature, friction=FRICTION / fs, rng=rng, fixcm=False
    )  # with fixcm it would move the frozen atoms
    dynamics.run(round(EQUILIBRATION / timestep))
    return _replace_positions(cut, atoms)


def _free_shell(cut: ExtractedStructure, potential: FittedPotential, shell: np.ndarray) -> Atoms:
    atoms = Atoms(cut.atoms.numbers, positions=cut.atoms.positions, cell=cut.atoms.cell, pbc=cut.atoms.pbc)
    atoms.set_constraint(FixAtoms(mask=~shell))
    atoms.calc = potential.calculator
    return atoms


def _replace_positions(cut: ExtractedStructure, moved: Atoms) -> ExtractedStructure:
    atoms = cut.atoms.copy()
    atoms.positions = moved.positions
    return replace(cut, atoms=atoms)
