"""What the config's models cannot see of its structures: whether they can be built, and suffice for a first fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.units import kB

from mlip_auto.config import ENVIRONMENTS_PER_FUNCTION, CampaignConfig
from mlip_auto.config_exploration import WalkerStructure
from mlip_auto.config_initial import InitialStructures, StructureSource
from mlip_auto.distances import allowed_distances, describe_too_close, find_nearest_distance, find_too_close
from mlip_auto.initial import draw_allowed
from mlip_auto.initial_sources import build_family, build_source, require_icet
from mlip_auto.starts import build_start
from mlip_auto.walkers import WalkerSpec, base_walkers

CHEAP_CODES = ("emt", "tblite")
FAR = 2.0  # crystals are bound below this many sums of covalent radii, those of light noble gases apart
STIFFNESS = 10.0  # eV/Å², force constant of an atom in a fairly stiff crystal; softer ones move further


@dataclass
class CheckResult:
    """Errors forbid a run, warnings do not; each says key, found, allowed and cure."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BuiltSource:
    """A source with its key in the config and its undistorted structures (none where they cannot be built)."""

    key: str
    source: StructureSource
    structures: list[Atoms]


def build_checked(
    key: str, source: StructureSource, config: CampaignConfig, directory: Path, result: CheckResult
) -> BuiltSource:
    """Build the source at `key` of the config; an error goes to `result`, and leaves the source without structures."""
    try:
        if source.sqs:
            require_icet()
        if isinstance(source, InitialStructures):
            drawn = source.model_copy(update={"sqs": False})  # which needs seconds, and has the same atoms
            structures = build_family(drawn, config.initial, config.system.elements, config.seed, directory)
        elif isinstance(source, WalkerStructure) and source.data_set:
            structures = [build_start(config, WalkerSpec("", source, (), config.seed), directory=directory)]
        else:
            structures = build_source(source, config.system.elements, config.seed, directory)
    except ValueError as error:
        result.errors.append(f"{key}.{error}")
        return BuiltSource(key, source, [])
    allowed = allowed_distances(config.system.elements, config.initial.min_distance)
    for atoms in structures:
        too_close = find_too_close(atoms, allowed)
        if too_close is not None:
            result.errors.append(
                f"{key}: {describe_too_close(atoms, too_close)}; correct `a` or the file, or lower the limit"
            )
            break
        nearest, reach = find_nearest_distance(atoms), 2 * covalent_radii[atoms.numbers].max()
        if atoms.pbc.all() and nearest > FAR * reach:
            result.warnings.append(
                f"{key}: the nearest atoms are {nearest:.2f} Å apart, more than {FAR:g} times their covalent radii "
                f"({reach:.2f} Å); is `a` or the file in Å? Correct it unless you want atoms this far apart"
            )
            break
    return BuiltSource(key, source, structures)


def check_initial(config: CampaignConfig, families: Sequence[BuiltSource], result: CheckResult) -> None:
    """Add to `result` what is wrong with generation 0."""
    _check_elements(config, families, result)
    _check_molecules(config, result)
    _check_melts(config, result)
    _check_vacancies(config, families, result)
    _check_environments(config, families, result)
    _check_rattles(config, result)
    _check_room(config, families, result)


def _check_elements(config: CampaignConfig, families: Sequence[BuiltSource], result: CheckResult) -> None:
    elements = config.system.elements
    if all(family.structures for family in families):
        crystals = [family.structures for family in families if not _is_molecule(family.source)]
        present = {symbol for structures in crystals for atoms in structures for symbol in set(atoms.symbols)}
        result.errors.extend(
            f"system.elements: {element} is in no crystal of initial.structures; add a family with a prototype or a "
            f"file that holds {element}, or take it out of system.elements"
            for element in elements
            if element not in present
        )
    named = {"system.masses": config.system.masses, "initial.min_distance": config.initial.min_distance}
    result.errors.extend(
        f"{section}.{key}: names an element outside system.elements ({', '.join(elements)}); remove it"
        for section, content in named.items()
        for key in content
        if not set(key.split("-")) <= set(elements)
    )


def _is_molecule(source: StructureSource) -> bool:
    return isinstance(source, InitialStructures) and source.is_molecule


def _check_molecules(config: CampaignConfig, result: CheckResult) -> None:
    families = config.initial.structures
    if any(family.isolated_atoms for family in families):
        return
    result.errors.extend(
        f"initial.structures[{number}].dimers: two atoms far apart have the energy of two isolated atoms, which no "
        "structure tells; add a family `- isolated_atoms: {}`"
        for number, family in enumerate(families)
        if family.dimers
    )


def _check_melts(config: CampaignConfig, result: CheckResult) -> None:
    for number, family in enumerate(config.initial.structures):
        if family.melt and config.dft.code not in CHEAP_CODES:
            steps = family.melt.steps + (family.count - 1) * family.melt.every
            result.warnings.append(
                f"initial.structures[{number}].melt: {steps} MD steps are as many {config.dft.code} calculations in "
                "one job, outside dft.max_core_hours; better: frames of a melt made elsewhere, as a `file`"
            )


def _check_vacancies(config: CampaignConfig, families: Sequence[BuiltSource], result: CheckResult) -> None:
    for built, family in zip(families, config.initial.structures, strict=True):
        smallest = min((len(atoms) for atoms in built.structures), default=None)
        if smallest is not None and max(family.vacancies) >= smallest:
            result.errors.append(
                f"{built.key}.vacancies: found {max(family.vacancies)} in a cell of {smallest} atoms; at most "
                f"{smallest - 1} can go: enlarge `supercell` or lower it"
            )


def _check_environments(config: CampaignConfig, families: Sequence[BuiltSource], result: CheckResult) -> None:
    """Atoms by element in generation 0 against functions; the selection keeps an even share of all structures."""
    if not all(family.structures for family in families):
        return
    atoms_by_element: Counter[str] = Counter()
    n_candidates = 0
    for built, family in zip(families, config.initial.structures, strict=True):
        n_candidates += family.copies * len(built.structures)
        for atoms in [] if family.is_molecule else built.structures:
            for symbol, number in Counter(atoms.symbols).items():
                atoms_by_element[symbol] += number * family.copies
    n_selected = min(n_candidates, config.selection.max_structures)
    functions = config.training.basis.number_of_functions_per_element
    for element, number in sorted(atoms_by_element.items()):
        environments = round(number * n_selected / n_candidates)
        trained = round(environments * (1 - config.training.held_out_fraction))
        found = (
            f"training.basis.number_of_functions_per_element: {functions} functions for {element}, and generation 0 "
            f"trains on about {trained} environments of it ({n_selected} of {n_candidates} structures are labelled, "
            f"{config.training.held_out_fraction:.0%} held out)"
        )
        cure = "raise `count`, `supercell` or selection.max_structures, or ask for fewer functions"
        if trained < functions:
            result.errors.append(f"{found}; MaxVol needs at least as many environments as functions: {cure}")
        elif environments < ENVIRONMENTS_PER_FUNCTION * functions:
            result.warnings.append(
                f"{found}; {ENVIRONMENTS_PER_FUNCTION} times as many as functions are wanted: {cure}"
            )


def _check_rattles(config: CampaignConfig, result: CheckResult) -> None:
    def thermal(temperature: float) -> float:
        return sqrt(kB * temperature / STIFFNESS)

    target = max(walker.hottest for walker in base_walkers(config))
    largest = max(
        max(family.rattles, default=thermal(family.rattle_temperature or 0)) for family in config.initial.structures
    )
    if largest < 0.5 * thermal(target) and not any(family.melt for family in config.initial.structures):
        result.warnings.append(
            f"initial.structures: the largest rattle is {largest:.3g} Å, far below the thermal displacement at "
            f"{target:g} K (about {thermal(target):.2g} Å by axis in a stiff crystal); MD would halt at once: "
            "give larger `rattles`, or `rattle_temperature`"
        )


def _check_room(config: CampaignConfig, families: Sequence[BuiltSource], result: CheckResult) -> None:
    """The largest rattle of each family must leave atoms apart: tried on its first structure."""
    allowed = allowed_distances(config.system.elements, config.initial.min_distance)
    for family in families:
        source = family.source
        refused = any(error.startswith(family.key) for error in result.errors)
        if refused or not family.structures or not isinstance(source, InitialStructures) or not source.rattles:
            continue
        rattles = dict.fromkeys(config.system.elements, max(source.rattles))
        try:
            draw_allowed(family.structures[0], source, rattles, 0, np.random.default_rng(config.seed), allowed)
        except ValueError as error:
            result.errors.append(f"{family.key}.{error}")
