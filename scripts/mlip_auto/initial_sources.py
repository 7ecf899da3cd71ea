"""Undistorted structures from the config: crystals, files, alloys, slabs, random crystals, molecules."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, surface

from mlip_auto.config_initial import (
    Dimers,
    Initial,
    InitialStructures,
    IsolatedAtoms,
    RandomCrystal,
    StructureSource,
    Surface,
)
from mlip_auto.distances import allowed_distances, find_nearest_distance, find_too_close

PROTOTYPES = (
    "sc", "fcc", "bcc", "hcp", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite", "wurtzite"
)  # fmt: skip
WITHOUT_CUBIC_CELL = ("hcp", "wurtzite")
MAX_SPACEGROUPS = 200
MAX_CROWDED = 5
PAIRS, TRIPLETS = 2.05, 1.45
"""Cutoffs of a special quasirandom structure in nearest distances: in fcc four shells of pairs, two of triplets."""

Seed = int | np.random.SeedSequence


def build_family(
    family: InitialStructures, initial: Initial, elements: Sequence[str], seed: Seed = 0, directory: Path = Path()
) -> list[Atoms]:
    """The undistorted structures of a family of generation 0; parameters and errors as in `build_source`."""
    if family.isolated_atoms:
        return isolated_atoms(family.isolated_atoms, elements)
    if family.dimers:
        return dimers(family.dimers, elements)
    if family.random_crystal:
        allowed = allowed_distances(elements, initial.min_distance)
        return [random_crystal(family.random_crystal, allowed, seed).repeat(family.supercell)]
    return build_source(family, elements, seed, directory)


def build_source(
    source: StructureSource, elements: Sequence[str], seed: Seed = 0, directory: Path = Path()
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
    crystals = read_file(source, directory) if source.file else [_build_prototype(source, elements)]
    if source.surface:
        crystals = [cut_surface(crystal, source.surface) for crystal in crystals]
    rng = np.random.default_rng(seed)
    repeated = []
    for crystal in crystals:
        atoms = crystal.repeat(source.supercell)
        if source.composition:
            _set_composition(atoms, source.composition, rng)
        if source.sqs:
            atoms = sqs(crystal, atoms, rng)
        repeated.append(atoms)
    for atoms in repeated:
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


def read_file(source: StructureSource, directory: Path) -> list[Atoms]:
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


def count_sources(family: InitialStructures, elements: Sequence[str], directory: Path = Path()) -> int:
    """Number of structures that `build_family` gives. Reads the file where the family names one, builds nothing."""
    if family.isolated_atoms:
        return len(elements)
    if family.dimers:
        return len(elements) * (len(elements) + 1) // 2 * len(family.dimers.distances)
    return len(read_file(family, directory)) if family.file else 1


def require_icet() -> None:
    """Raise ValueError, with the cure, where icet is not installed."""
    if find_spec("icet") is None:
        raise ValueError("sqs: found true, which needs icet; `make sqs` installs it (with a C++ compiler)")


def sqs(crystal: Atoms, start: Atoms, rng: np.random.Generator) -> Atoms:
    """The special quasirandom structure (Zunger et al., Phys. Rev. Lett. 65, 353, 1990) with the atoms of `start`.

    icet's simulated annealing of pair and triplet correlations (van de Walle et al., Calphad 42, 13, 2013).

    Parameters
    ----------
    crystal
        The crystal of which `start` is a supercell; any element on its sites.

    Raises
    ------
    ValueError
        icet is not installed.
    """
    require_icet()
    from icet import ClusterSpace
    from icet.input_output.logging_tools import set_log_config
    from icet.tools.structure_generation import generate_sqs_from_supercells

    set_log_config(level="ERROR")
    lattice = crystal.copy()
    lattice.symbols = start.symbols[0]
    nearest = find_nearest_distance(lattice)
    concentrations = {symbol: indices.size / len(start) for symbol, indices in start.symbols.indices().items()}
    space = ClusterSpace(lattice, [PAIRS * nearest, TRIPLETS * nearest], sorted(concentrations))
    supercell = start.copy()
    supercell.symbols = start.symbols[0]
    return _bare(generate_sqs_from_supercells(space, [supercell], concentrations, random_seed=int(rng.integers(2**31))))


def cut_surface(crystal: Atoms, settings: Surface) -> Atoms:
    """A slab of the crystal in vacuum, periodic along its faces only."""
    return _bare(surface(crystal, settings.miller, settings.layers, settings.vacuum))


def random_crystal(settings: RandomCrystal, allowed: Mapping[tuple[str, str], float], seed: Seed = 0) -> Atoms:
    """A random symmetric crystal (pyxtal; Fredericks et al., Comput. Phys. Commun. 261, 107810, 2021).

    Space groups are drawn until one takes the numbers of atoms and keeps them apart.

    Parameters
    ----------
    allowed
        Smallest distances as `distances.allowed_distances` gives them for the elements of the system.
    """
    from pyxtal import pyxtal
    from pyxtal.msg import Comp_CompatibilityError, VolumeError

    elements = {element for pair in allowed for element in pair}
    strangers = sorted(set(settings.atoms) - elements)
    if strangers:
        raise ValueError(
            f"random_crystal.atoms: names {', '.join(strangers)}; system.elements allows {', '.join(sorted(elements))}"
        )
    rng = np.random.default_rng(seed)
    first, last = settings.spacegroups
    crowded = 0
    for group in rng.integers(first, last, size=MAX_SPACEGROUPS, endpoint=True):
        crystal = pyxtal()
        try:
            crystal.from_random(
                group=int(group),
                species=list(settings.atoms),
                numIons=list(settings.atoms.values()),
                factor=settings.volume_factor,
                max_count=1,
                random_state=rng,
            )
        except (Comp_CompatibilityError, VolumeError):
            continue
        except RuntimeError:  # no room for the atoms, found out in some seconds
            crowded += 1
        if crystal.valid and find_too_close(atoms := _bare(crystal.to_ase()), allowed) is None:
            return atoms
        if crowded == MAX_CROWDED:
            break
    raise ValueError(
        f"random_crystal.spacegroups: no space group drawn from {first} to {last} takes {settings.atoms} with atoms "
        "far enough apart; widen `spacegroups`, change `atoms`, or raise `volume_factor`"
    )


def isolated_atoms(settings: IsolatedAtoms, elements: Sequence[str]) -> list[Atoms]:
    """One atom of each element in vacuum."""
    return [_in_vacuum(Atoms(element), settings.vacuum) for element in elements]


def dimers(settings: Dimers, elements: Sequence[str]) -> list[Atoms]:
    """Each pair of elements at each distance in vacuum."""
    return [
        _in_vacuum(Atoms(pair, positions=[(0, 0, 0), (0, 0, distance)]), settings.vacuum)
        for pair in combinations_with_replacement(elements, 2)
        for distance in settings.distances
    ]


def _in_vacuum(atoms: Atoms, vacuum: float) -> Atoms:
    atoms.center(vacuum=vacuum)  # the cell is for codes with plane waves; nothing is periodic
    return atoms
