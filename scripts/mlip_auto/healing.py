"""The faces of a box after the cut: its outer shell is relaxed with the current potential until it looks known."""

from collections.abc import Callable

import numpy as np
from ase.constraints import FixAtoms
from ase.optimize import FIRE

from mlip_auto.cut_audit import Audit
from mlip_auto.cutting import ExtractedStructure
from mlip_auto.fitted_potential import FittedPotential

ROUNDS = 4
STEPS_A_ROUND = 10
LARGEST_STEP = 0.1  # Å
STILL = 0.05  # eV/Å: nothing is left to relax


def heal(
    cut: ExtractedStructure,
    potential: FittedPotential,
    frozen_radius: float,
    audit: Callable[[ExtractedStructure], Audit],
) -> tuple[ExtractedStructure, Audit]:
    """The cut with its faces healed, and its audit.

    A box is relaxed round by round until it passes the audit and no boundary atom is above the threshold: not to rest,
    for the more its shell is cooled, the further the forces on the core are from those in the frame. What has a
    surface, or is the frame, stays as it is. Of all rounds that with the fewest problems, then the fewest boundary
    atoms above the threshold, then the smallest change of force.
    """
    found = [(cut, audit(cut))]
    rounds = ROUNDS if cut.atoms.info["cut_mode"] == "box" else 0
    while len(found) <= rounds and (found[-1][1].problems or found[-1][1].boundary_above):
        healed = relax_shell(found[-1][0], potential, frozen_radius)
        found.append((healed, audit(healed)))
    return min(found, key=lambda one: (len(one[1].problems), one[1].boundary_above, one[1].force_change))


def relax_shell(cut: ExtractedStructure, potential: FittedPotential, frozen_radius: float) -> ExtractedStructure:
    """A copy with atoms beyond `frozen_radius` (Å) of the centre relaxed by a few short steps; the cell stays."""
    atoms = cut.atoms.copy()
    atoms.set_constraint(FixAtoms(mask=np.linalg.norm(cut.vectors(), axis=1) < frozen_radius))
    atoms.calc = potential.calculator
    FIRE(atoms, logfile=None, maxstep=LARGEST_STEP).run(fmax=STILL, steps=STEPS_A_ROUND)
    atoms.calc = None
    atoms.set_constraint()
    return ExtractedStructure(atoms, cut.center_atom_index, cut.force_mask)
