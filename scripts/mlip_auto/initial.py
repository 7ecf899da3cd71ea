"""Generation 0: copies of the families of `initial.structures`, distorted as their config says."""

from collections.abc import Iterator
from itertools import islice
from math import sqrt
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import InitialStructures
from mlip_auto.distances import allowed_distances, describe_too_close, find_too_close
from mlip_auto.initial_disorder import CalculatorFactory, distort, insert_atoms, melt, thermal_displacements
from mlip_auto.initial_sources import build_family, count_sources

MAX_ATTEMPTS = 100


def count_candidates(config: CampaignConfig, directory: Path = Path()) -> int:
    """Number of structures `generate_candidates` makes. Reads files only where a family names one."""
    return sum(
        family.copies * count_sources(family, config.system.elements, directory) for family in config.initial.structures
    )


def generate_candidates(
    config: CampaignConfig, make_calculator: CalculatorFactory | None = None, directory: Path = Path()
) -> list[Atoms]:
    """Generation 0: `count` strained, rattled copies of each source of `initial.structures`, in that order.

    The same config gives the same structures, and a family or a copy added at the end changes none before it.

    Parameters
    ----------
    make_calculator
        Gives the oracle for some atoms as an ASE calculator; used by families with `rattle_temperature` or `melt`.

    Raises
    ------
    ValueError
        A source that cannot be built, or distortions that bring atoms too close whatever is drawn.
    """
    allowed = allowed_distances(config.system.elements, config.initial.min_distance)
    candidates: list[Atoms] = []
    for number, family in enumerate(config.initial.structures):
        try:
            if family.is_molecule:
                made = build_family(family, config.initial, config.system.elements)
                candidates.extend(_add_provenance(atoms, number, f"{atoms.symbols} in vacuum") for atoms in made)
            else:
                candidates.extend(_distort_family(config, number, make_calculator, directory, allowed))
        except ValueError as error:
            raise ValueError(f"initial.structures[{number}].{error}") from error
    return candidates


def _distort_family(
    config: CampaignConfig,
    number: int,
    make_calculator: CalculatorFactory | None,
    directory: Path,
    allowed: dict[tuple[str, str], float],
) -> Iterator[Atoms]:
    family = config.initial.structures[number]
    elements = config.system.elements
    thermal = None
    if family.rattle_temperature is not None:
        if make_calculator is None:
            raise ValueError("rattle_temperature: needs the oracle to measure force constants; none was given")
        sources = build_family(family, config.initial, elements, np.random.SeedSequence(config.seed), directory)
        thermal = thermal_displacements(sources, family.rattle_temperature, make_calculator)
    for index, start in enumerate(_list_starts(config, number, make_calculator, directory)):
        copy = index % family.count
        origin = f"{start.get_chemical_formula()} {_describe_source(family)}"
        if thermal is None:
            amplitude = family.rattles[copy % len(family.rattles)] if family.rattles else 0.0
            rattles = dict.fromkeys(elements, amplitude)
            origin += f", rattle {amplitude:g} Å" if family.rattles else ""
        else:
            rattles = {element: displacement / sqrt(3) for element, displacement in thermal.items()}
            origin += f", rattle of {family.rattle_temperature:g} K"
        # Vacancies advance once all rattles have had their turn, then interstitials: every combination occurs.
        turn, n_vacancies = divmod(copy // max(len(family.rattles), 1), len(family.vacancies))
        n_vacancies = family.vacancies[n_vacancies]
        n_interstitials = family.interstitials[turn % len(family.interstitials)]
        if n_vacancies >= len(start):
            raise ValueError(f"vacancies: {n_vacancies} of {len(start)} atoms; leave at least one atom")
        if n_vacancies:
            origin += f", {n_vacancies} vacanc{'y' if n_vacancies == 1 else 'ies'}"
        _, distortion, insertion = _spawn_seeds(config, number, index)
        if n_interstitials:
            rng = np.random.default_rng(insertion)
            inserted = [str(element) for element in rng.choice(elements, n_interstitials)]
            start = insert_atoms(start, inserted, rng)
            origin += f", interstitial {' '.join(inserted)}"
        rng = np.random.default_rng(distortion)
        yield _add_provenance(draw_allowed(start, family, rattles, n_vacancies, rng, allowed), number, origin)


def _list_starts(
    config: CampaignConfig, number: int, make_calculator: CalculatorFactory | None, directory: Path
) -> Iterator[Atoms]:
    """Each copy of a family before its distortion: a crystal, one drawn anew, a frame of a melt."""
    family, elements = config.initial.structures[number], config.system.elements
    once = np.random.SeedSequence(config.seed)
    if family.redrawn:
        for index in range(family.count * count_sources(family, elements, directory)):
            sites, *_ = _spawn_seeds(config, number, index)
            yield build_family(family, config.initial, elements, sites, directory)[index // family.count]
        return
    for index, crystal in enumerate(build_family(family, config.initial, elements, once, directory)):
        if family.melt is None:
            yield from [crystal] * family.count
            continue
        if make_calculator is None:
            raise ValueError("melt: needs the oracle for its MD; none was given")
        velocities, *_ = _spawn_seeds(config, number, index * family.count)
        frames = melt(crystal, family.melt, config.exploration.timestep, make_calculator, velocities)
        yield from islice(frames, family.count)


def _spawn_seeds(config: CampaignConfig, family: int, index: int) -> list[np.random.SeedSequence]:
    """Seeds of one copy: of what it starts from, of its distortion, of its interstitials."""
    return np.random.SeedSequence(config.seed, spawn_key=(family, index)).spawn(3)


def _describe_source(family: InitialStructures) -> str:
    """Such as `fcc`, `fcc (111) surface`, `random crystal`, `melt of 2000 K`."""
    parts = [family.prototype or ("random crystal" if family.random_crystal else str(family.file))]
    if family.sqs:
        parts.append("SQS")
    if family.surface:
        parts.append(f"({' '.join(map(str, family.surface.miller))}) surface")
    if family.melt:
        parts.append(f"melt at {family.melt.temperature:g} K")
    return " ".join(parts)


def _add_provenance(atoms: Atoms, family: int, origin: str) -> Atoms:
    atoms.info.update(config_type="initial", generation=0, origin=origin, family=family, energy_weight=1.0)
    atoms.set_array("force_mask", np.ones(len(atoms), dtype=int))
    return atoms


def draw_allowed(
    crystal: Atoms,
    family: InitialStructures,
    rattles: dict[str, float],
    n_vacancies: int,
    rng: np.random.Generator,
    allowed: dict[tuple[str, str], float],
) -> Atoms:
    """A distorted copy without atoms too close; drawn anew up to MAX_ATTEMPTS times.

    Parameters
    ----------
    rattles, allowed
        Standard deviation of the displacements by element, and smallest distance by pair, Å.

    Raises
    ------
    ValueError
        Each draw brought atoms too close.
    """
    last = ""
    for _ in range(MAX_ATTEMPTS):
        atoms = distort(crystal, family.strain, family.shear, rattles, n_vacancies, rng)
        too_close = find_too_close(atoms, allowed)
        if too_close is None:
            return atoms
        last = describe_too_close(atoms, too_close)
    key = "rattle_temperature" if family.rattle_temperature else "rattles" if family.rattles else "strain"
    raise ValueError(
        f"{key}: {MAX_ATTEMPTS} draws with displacements of {max(rattles.values()):g} Å all brought atoms too close "
        f"(last: {last}); lower `{key}`, `strain`, `shear` or `initial.min_distance`"
    )
