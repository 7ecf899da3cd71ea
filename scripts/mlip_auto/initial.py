"""Structures from the config alone: crystals, files, random alloys, and the distorted copies that are generation 0."""

from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.units import kB
from matscipy.neighbours import neighbour_list

from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import InitialStructures, StructureSource
from mlip_auto.distances import allowed_distances, describe_too_close, find_too_close

PROTOTYPES = (
    "sc", "fcc", "bcc", "hcp", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite", "wurtzite"
)  # fmt: skip
WITHOUT_CUBIC_CELL = ("hcp", "wurtzite")
MAX_ATTEMPTS = 100
LARGEST_RATTLE = 0.1  # of the nearest distance: beyond it (Lindemann) a crystal melts
PROBE = 0.02  # Å, displacement that measures a force constant

CalculatorFactory = Callable[[Atoms], BaseCalculator]


def build_source(
    source: StructureSource,
    elements: Sequence[str],
    seed: int | np.random.SeedSequence = 0,
    directory: Path = Path(),
) -> list[Atoms]:
    """The undistorted structures of a source: one for a prototype, those that `index` picks for a file.

    Parameters
    ----------
    elements
        `system.elements`: what a structure may hold, and the formula of a prototype that names none.
    seed
        Decides where the elements of a `composition` go; without one the structure does not depend on it.
    directory
        Relative file names start here.

    Raises
    ------
    ValueError
        Key of the source, what was found, what is allowed.
    """
    structures = _read_file(source, directory) if source.file else [_build_prototype(source, elements)]
    rng = np.random.default_rng(seed)
    repeated = [atoms.repeat(source.supercell) for atoms in structures]
    for atoms in repeated:
        if source.composition:
            _set_composition(atoms, source.composition, rng)
        strangers = sorted(set(atoms.symbols) - set(elements))
        if strangers:
            key = "composition" if source.composition else "formula" if source.file is None else "file"
            raise ValueError(
                f"{key}: {getattr(source, key)} holds {', '.join(strangers)}; system.elements allows "
                f"{', '.join(elements)}: add the element there or give another structure"
            )
    return repeated


def _build_prototype(source: StructureSource, elements: Sequence[str]) -> Atoms:
    if source.prototype not in PROTOTYPES:
        raise ValueError(f"prototype: found {source.prototype!r}; allowed: {', '.join(PROTOTYPES)}, or give a `file`")
    formula = source.formula or (next(iter(source.composition)) if source.composition else None)
    if formula is None and len(elements) == 1:
        formula = elements[0]
    if formula is None:
        raise ValueError(
            f"formula: missing; which of {', '.join(elements)} is on the sites of {source.prototype}? "
            "Give `formula` (e.g. NaCl) or `composition`"
        )
    cubic = source.cubic and source.prototype not in WITHOUT_CUBIC_CELL
    try:
        crystal = bulk(formula, source.prototype, a=source.a, c=source.c, cubic=cubic)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"prototype: ASE cannot build {source.prototype} from formula {formula!r}: {error.args[0]}"
        ) from error
    return _bare(crystal)


def _read_file(source: StructureSource, directory: Path) -> list[Atoms]:
    import ase.io  # 0.4 s, which Snakemake would pay whenever it parses the rules

    assert source.file is not None
    path = Path(directory) / source.file
    if not path.is_file():
        raise ValueError(f"file: {source.file}: no such file in {Path(directory).resolve()}")
    try:
        content = ase.io.read(path, index=source.index)
    except Exception as error:  # ASE's readers raise anything; the cause stays attached
        raise ValueError(
            f"file: {source.file}: ASE cannot read structures {source.index!r}: {type(error).__name__}: {error}"
        ) from error
    structures = content if isinstance(content, list) else [content]
    if not structures:
        raise ValueError(f"file: {source.file}: index {source.index!r} picks no structure")
    return [_bare(atoms) for atoms in structures]


def _bare(atoms: Atoms) -> Atoms:
    """Elements, positions and cell only: labels and tags of a user's file are no part of a candidate."""
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def _set_composition(atoms: Atoms, composition: dict[str, float], rng: np.random.Generator) -> None:
    """Put the fractions of `composition` on the sites at random; whole atoms by largest remainder."""
    ideal = np.array(list(composition.values())) * len(atoms)
    counts = np.floor(ideal + 1e-9).astype(int)
    missing = len(atoms) - counts.sum()
    counts[np.argsort(counts - ideal, kind="stable")[:missing]] += 1
    for element, fraction, number in zip(composition, composition.values(), counts, strict=True):
        if fraction > 0 and number == 0:
            raise ValueError(
                f"composition.{element}: {fraction:g} of {len(atoms)} atoms is no whole atom; enlarge `supercell`"
            )
    atoms.symbols = rng.permutation(np.repeat(list(composition), counts))


def count_candidates(config: CampaignConfig, directory: Path = Path()) -> int:
    """Number of structures `generate_candidates` makes. Reads files only where a family names one."""
    total = 0
    for family in config.initial.structures:
        sources = 1 if family.file is None else len(_read_file(family, directory))
        total += family.count * sources
    return total


def generate_candidates(
    config: CampaignConfig, make_calculator: CalculatorFactory | None = None, directory: Path = Path()
) -> list[Atoms]:
    """Generation 0: `count` strained, rattled copies of each source of `initial.structures`, in that order.

    The same config gives the same structures, and a family or a copy added at the end changes none before it.

    Parameters
    ----------
    make_calculator
        Gives the oracle for some atoms as an ASE calculator; used by families with a `rattle_temperature` only.

    Raises
    ------
    ValueError
        A source that cannot be built, or distortions that bring atoms too close whatever is drawn.
    """
    allowed = allowed_distances(config.system.elements, config.initial.min_distance)
    candidates: list[Atoms] = []
    for number in range(len(config.initial.structures)):
        try:
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
    sources = build_source(family, elements, np.random.SeedSequence(config.seed), directory)
    thermal = None
    if family.rattle_temperature is not None:
        if make_calculator is None:
            raise ValueError("rattle_temperature: needs the oracle to measure force constants; none was given")
        thermal = thermal_displacements(sources, family.rattle_temperature, make_calculator)
    for index in range(family.count * len(sources)):
        sequence = np.random.SeedSequence(config.seed, spawn_key=(number, index))
        sites, distortion = sequence.spawn(2)
        if family.composition:  # every copy its own random alloy
            sources = build_source(family, elements, sites, directory)
        crystal = sources[index // family.count]
        copy = index % family.count
        what = f"{crystal.get_chemical_formula()} {family.prototype or family.file}"
        if thermal is None:
            amplitude = family.rattles[copy % len(family.rattles)]
            rattles = dict.fromkeys(elements, amplitude)
            origin = f"{what}, rattle {amplitude:g} Å"
        else:
            rattles = {element: displacement / sqrt(3) for element, displacement in thermal.items()}
            origin = f"{what}, rattle of {family.rattle_temperature:g} K"
        # Vacancies advance once all rattles have had their turn, so that every combination occurs.
        n_vacancies = family.vacancies[copy // max(len(family.rattles), 1) % len(family.vacancies)]
        if n_vacancies >= len(crystal):
            raise ValueError(f"vacancies: {n_vacancies} of {len(crystal)} atoms; leave at least one atom")
        if n_vacancies:
            origin += f", {n_vacancies} vacanc{'y' if n_vacancies == 1 else 'ies'}"
        rng = np.random.default_rng(distortion)
        atoms = _draw_allowed(crystal, family, rattles, n_vacancies, rng, allowed)
        atoms.info.update(config_type="initial", generation=0, origin=origin, energy_weight=1.0)
        atoms.set_array("force_mask", np.ones(len(atoms), dtype=int))
        yield atoms


def _draw_allowed(
    crystal: Atoms,
    family: InitialStructures,
    rattles: dict[str, float],
    n_vacancies: int,
    rng: np.random.Generator,
    allowed: dict[tuple[str, str], float],
) -> Atoms:
    """A distorted copy without atoms too close; drawn anew up to MAX_ATTEMPTS times."""
    last = ""
    for _ in range(MAX_ATTEMPTS):
        atoms = distort(crystal, family.strain, family.shear, rattles, n_vacancies, rng)
        too_close = find_too_close(atoms, allowed)
        if too_close is None:
            return atoms
        last = describe_too_close(atoms, too_close)
    key = "rattles" if family.rattles else "rattle_temperature"
    raise ValueError(
        f"{key}: {MAX_ATTEMPTS} draws with displacements of {max(rattles.values()):g} Å all brought atoms too close "
        f"(last: {last}); lower `{key}`, `strain`, `shear` or `initial.min_distance`"
    )


def distort(
    crystal: Atoms,
    strain: float,
    shear: float,
    rattles: dict[str, float],
    n_vacancies: int,
    rng: np.random.Generator,
) -> Atoms:
    """A strained and rattled copy with atoms removed.

    The cell is deformed by F = (1 + v) I + e, v drawn evenly from ± `strain`, the three off-diagonal components of the
    symmetric e from ± `shear`. Displacements along x, y, z are normal with standard deviation `rattles[element]` (Å).
    """
    deformation = np.eye(3) * (1 + rng.uniform(-strain, strain))
    yz, xz, xy = rng.uniform(-shear, shear, 3)
    deformation += [[0, xy, xz], [xy, 0, yz], [xz, yz, 0]]
    atoms = crystal.copy()
    atoms.set_cell(crystal.cell[:] @ deformation)
    deviations = np.array([rattles[symbol] for symbol in crystal.symbols])
    atoms.positions = crystal.positions @ deformation + deviations[:, None] * rng.normal(size=(len(atoms), 3))
    removed = rng.choice(len(atoms), n_vacancies, replace=False)
    del atoms[removed]
    return atoms


def thermal_displacements(
    crystals: Sequence[Atoms], temperature: float, make_calculator: CalculatorFactory
) -> dict[str, float]:
    """Root mean square displacement (Å) of each element in a harmonic crystal, u = sqrt(3kT / (m w²)).

    m w² is the force constant of one atom of the element, displaced in the first crystal that holds it (Einstein's
    model), so no mass is needed. u is at most 0.1 of the nearest distance, also where the atom sits at no minimum.
    """
    displacements: dict[str, float] = {}
    for crystal in crystals:
        largest = LARGEST_RATTLE * _nearest_distance(crystal)
        for element in sorted(set(crystal.symbols) - displacements.keys()):
            atom = int(np.flatnonzero(crystal.symbols == element)[0])
            stiffness = _force_constant(crystal, atom, make_calculator)
            harmonic = sqrt(3 * kB * temperature / stiffness) if stiffness > 0 else largest
            displacements[element] = min(harmonic, largest)
    return displacements


def _force_constant(crystal: Atoms, atom: int, make_calculator: CalculatorFactory) -> float:
    """-dF/dr (eV/Å²) of one atom along the body diagonal, which sees all three axes alike."""
    direction = np.full(3, 1 / sqrt(3))
    along = []
    for step in (-PROBE, PROBE):
        displaced = crystal.copy()
        displaced.positions[atom] += step * direction
        displaced.calc = make_calculator(displaced)
        along.append(displaced.get_forces()[atom] @ direction)
    return float(along[0] - along[1]) / (2 * PROBE)


def _nearest_distance(atoms: Atoms) -> float:
    cutoff = 3.0
    boxed = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.complete(), pbc=atoms.pbc)
    for _ in range(5):
        distances = neighbour_list("d", boxed, cutoff)
        if len(distances):
            return float(distances.min())
        cutoff *= 2
    raise ValueError("rattle_temperature: an isolated atom has no crystal around it; give `rattles` instead")
