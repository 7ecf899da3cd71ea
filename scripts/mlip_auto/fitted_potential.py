"""A fitted potential with its active set: forces and gamma of a structure in one evaluation."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from pyace.asecalc import PyACECalculator
from pyace.basis import ACEBBasisSet, BBasisConfiguration

from mlip_auto.ace import load_active_set, make_periodic


class Evaluation(NamedTuple):
    """Forces (eV/Å, shape=(n_atoms, 3)) and gamma (shape=(n_atoms,))."""

    forces: np.ndarray
    gamma: np.ndarray


class FittedPotential:
    """For structures of up to a few thousand atoms: python-ace searches their neighbours in O(N²).

    Parameters
    ----------
    potential, active_set
        B-basis potential (.yaml) and its inverse active set (.asi).
    """

    def __init__(self, potential: Path, active_set: Path):
        self.configuration = BBasisConfiguration(str(potential))
        self.active_set = load_active_set(active_set)
        basis = ACEBBasisSet(str(potential))
        self.species: dict[str, int] = dict(basis.elements_to_index_map)
        self.cutoff = float(basis.cutoffmax)
        self._grading = PyACECalculator(basis)
        self._grading.set_active_set(str(active_set))
        self._tilde_basis = basis.to_ACECTildeBasisSet()  # the evaluators hold a bare pointer to it
        self._fast = PyACECalculator(self._tilde_basis, recursive_evaluator=True, recursive=True)

    @property
    def calculator(self) -> Calculator:
        """ASE calculator of energy and forces without gamma, which takes a fraction of the time."""
        return self._fast

    def evaluate(self, atoms: Atoms) -> Evaluation:
        readable = make_periodic(atoms, self.cutoff).copy()
        self._grading.calculate(readable)
        results = self._grading.results
        return Evaluation(results["forces"], results["gamma"])
