"""The ACE basis: built from the config, its projections, the active set and the extrapolation grade gamma.

gamma of an atom is max |b A⁻¹|, with b the atom's basis projections and A the active set: the square matrix of training
projections of largest volume (Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171 (2017); for ACE Lysogorskiy
et al., Phys. Rev. Mater. 7, 043801 (2023)). All of it is python-ace's; here it is restricted to core atoms.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from pyace import activelearning, create_multispecies_basis_config
from pyace.asecalc import PyACECalculator
from pyace.basis import ACEBBasisSet, BBasisConfiguration

from mlip_auto.config import AceBasis, CampaignConfig
from mlip_auto.distances import allowed_distances
from mlip_auto.structures import get_force_mask, write_atomically

ActiveSet = dict[int, np.ndarray]
"""Inverse active set by species index: dtype=float, shape=(n_functions, n_functions)."""


def build_basis(
    settings: AceBasis,
    elements: Sequence[str],
    repulsion_distances: Mapping[tuple[str, str], float] | None = None,
) -> BBasisConfiguration:
    """Basis with all coefficients zero, in pacemaker's terms.

    Parameters
    ----------
    repulsion_distances
        Å, by sorted pair of elements: below these the ZBL core repulsion takes over, and the basis is switched off. The
        distances are those of the config and not of the data, so that the basis stays the same in every generation.
    """
    basis = create_multispecies_basis_config(
        {
            "deltaSplineBins": 0.001,
            "elements": list(elements),
            "embeddings": {
                "ALL": {
                    "npot": settings.npot,
                    "fs_parameters": settings.fs_parameters,
                    "ndensity": settings.ndensity,
                }
            },
            "bonds": {
                "ALL": {
                    "radbase": settings.radbase,
                    "radparameters": settings.radparameters,
                    "rcut": settings.cutoff,
                    "dcut": settings.dcut,
                    "NameOfCutoffFunction": "cos",
                }
            },
            "functions": {
                "number_of_functions_per_element": settings.number_of_functions_per_element,
                "ALL": {
                    "nradmax_by_orders": settings.nradmax_by_orders,
                    "lmax_by_orders": settings.lmax_by_orders,
                },
            },
        }
    )
    for block in basis.funcspecs_blocks:
        species = block.block_name.split()
        if repulsion_distances is not None and len(species) <= 2:
            block.r_in = repulsion_distances[min(species), max(species)]
            block.delta_in = 0.1
            block.inner_cutoff_type = "zbl"
            block.core_rep_parameters = [1.0, 1.0]
            block.rho_cut = 1.0
            block.drho_cut = 1.0
    return basis


def build_campaign_basis(config: CampaignConfig) -> BBasisConfiguration:
    """The unfitted basis of a campaign."""
    repulsion = None
    if config.training.repulsion == "auto":
        repulsion = allowed_distances(config.system.elements, config.initial.min_distance)
    return build_basis(config.training.basis, config.system.elements, repulsion)


def count_functions(basis: BBasisConfiguration) -> dict[str, int]:
    """Functions by element: the number of environments that MaxVol needs at least."""
    basis_set = ACEBBasisSet(basis)
    counts = activelearning.compute_number_of_functions(basis_set)
    return dict(zip(basis_set.elements_name, counts, strict=True))


def save_yace(basis: BBasisConfiguration, path: Path) -> None:
    """Write the potential in the format of LAMMPS's `pair_style pace`."""
    with write_atomically(path) as aside:
        ACEBBasisSet(basis).to_ACECTildeBasisSet().save_yaml(str(aside))


def make_periodic(atoms: Atoms, cutoff: float) -> Atoms:
    """The same environments in a cell that python-ace can read: it knows periodic in all directions or in none.

    Open directions of a slab or a wire get more empty space than the cutoff and count as periodic.
    """
    if all(atoms.pbc) or not any(atoms.pbc):
        return atoms
    padded = atoms.copy()
    padded.calc = None
    padded.center(vacuum=0.5 * cutoff + 0.1, axis=np.flatnonzero(~atoms.pbc))
    padded.pbc = True
    return padded


def _compute_projections(
    basis_set: ACEBBasisSet, structures: Sequence[Atoms]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Projections of all atoms and the structure of each, by species index, in the order of structures and atoms."""
    readable = [make_periodic(atoms, basis_set.cutoffmax) for atoms in structures]
    return activelearning.compute_B_projections(basis_set, readable, structure_ind_list=list(range(len(readable))))


def compute_core_projections(
    basis: BBasisConfiguration, structures: Sequence[Atoms]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Projections of core atoms only, by species index.

    Returns
    -------
    projections
        dtype=float, shape=(n_core_atoms, n_functions) for each species.
    structure_indices
        dtype=int, shape=(n_core_atoms,): which structure each row comes from.
    """
    basis_set = ACEBBasisSet(basis)
    projections, indices = _compute_projections(basis_set, structures)
    for element, species in basis_set.elements_to_index_map.items():
        core = np.concatenate(
            [get_force_mask(atoms)[np.array(atoms.get_chemical_symbols()) == element] for atoms in structures]
        )
        projections[species] = projections[species][core]
        indices[species] = indices[species][core]
    return projections, indices


def compute_active_set(basis: BBasisConfiguration, structures: Sequence[Atoms]) -> ActiveSet:
    """Inverse active set (MaxVol) over the core atoms of `structures`: a vacuum surface never becomes known.

    Raises
    ------
    ValueError
        When an element has fewer core environments than functions.
    """
    projections, _ = compute_core_projections(basis, structures)
    return activelearning.compute_A_active_inverse(activelearning.compute_active_set(projections))


def save_active_set(active_set: ActiveSet, elements: Sequence[str], path: Path) -> None:
    with write_atomically(path) as aside:
        activelearning.save_active_inverse_set(aside, active_set, elements_name=sorted(elements))


def load_active_set(path: Path) -> ActiveSet:
    return activelearning.load_active_inverse_set(path)


def compute_gamma(basis: BBasisConfiguration, active_set: ActiveSet, structures: Sequence[Atoms]) -> list[np.ndarray]:
    """Extrapolation grade of each atom, buffer atoms too: dtype=float, shape=(n_atoms,) for each structure."""
    basis_set = ACEBBasisSet(basis)
    projections, indices = _compute_projections(basis_set, structures)
    by_species = activelearning.compute_extrapolation_grade(projections, active_set)
    gammas = [np.zeros(len(atoms)) for atoms in structures]
    for element, species in basis_set.elements_to_index_map.items():
        for number, atoms in enumerate(structures):
            of_element = np.array(atoms.get_chemical_symbols()) == element
            gammas[number][of_element] = by_species[species][indices[species] == number]
    return gammas


def predict(basis: BBasisConfiguration, structures: Sequence[Atoms]) -> Iterator[tuple[float, np.ndarray]]:
    """Energy (eV, relative to the reference energies of the fit) and forces (eV/Å, shape=(n_atoms, 3)) of each."""
    calculator = PyACECalculator(ACEBBasisSet(basis))  # once: its splines take longer than a small structure
    for atoms in structures:
        readable = make_periodic(atoms, calculator.cutoff).copy()
        readable.calc = calculator
        yield float(readable.get_potential_energy()), readable.get_forces()
