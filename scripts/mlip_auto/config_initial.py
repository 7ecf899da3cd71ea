"""Sections of the config that name structures: where one comes from, and the families of generation 0."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from mlip_auto.config_types import Element, ElementPair, Positive, Section

Supercell = Annotated[tuple[int, int, int], Field(description="Repeats along the three cell vectors.")]


class Surface(Section):
    """A slab cut from the crystal, periodic along its faces only."""

    miller: tuple[int, int, int] = Field(
        description="Miller indices (h k l) of the face, in the cell of the crystal, e.g. [1, 1, 1]."
    )
    layers: int = Field(4, ge=1, description="Thickness in layers of that cell: `ase.build.surface`.")
    vacuum: Positive = Field(8.0, description="Empty space on both sides, Å.")

    @model_validator(mode="after")
    def _a_plane(self) -> "Surface":
        if not any(self.miller):
            raise ValueError("miller: [0, 0, 0] names no plane; e.g. [1, 1, 1]")
        return self


class StructureSource(Section):
    """A crystal to build (`prototype`) or a file to read (`file`): exactly one of the two."""

    sources: ClassVar[tuple[str, ...]] = ("prototype", "file")

    prototype: str | None = Field(
        None,
        description="Crystal structure of `ase.build.bulk`: fcc, bcc, hcp, diamond, sc, zincblende, rocksalt, cesiumchloride, fluorite, wurtzite, ...",
    )
    formula: str | None = Field(
        None, description="What `ase.build.bulk` builds, e.g. Si or NaCl; the element itself where there is one only."
    )
    a: Positive | None = Field(None, description="Lattice constant in Å; ASE's own where it has one.")
    c: Positive | None = Field(None, description="Second lattice constant in Å (hcp, wurtzite).")
    cubic: bool = Field(True, description="Conventional cubic cell instead of the primitive one, where there is one.")
    file: Path | None = Field(None, description="A structure file that ASE reads; relative to the working folder.")
    index: str = Field("-1", description="Which structures of the file: ASE's index syntax; `:` for all.")
    supercell: Supercell = (1, 1, 1)
    composition: dict[Element, Annotated[float, Field(ge=0, le=1)]] = Field(
        {},
        description="Fractions by element to put on the lattice sites at random (seeded), for a random alloy; sums to 1.",
    )
    sqs: bool = Field(
        False,
        description="Place `composition` as a special quasirandom structure (icet): pair and triplet correlations as near to those of the random alloy as `supercell` allows. One for the family, where `composition` alone is drawn anew for each copy.",
    )
    surface: Surface | None = Field(
        None, description="Cut a slab from the crystal; `supercell` then repeats it along its faces, [n, m, 1]."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "StructureSource":
        given = [f"`{key}`" for key in self.sources if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'no source'}; give either "
                f"{' or '.join(f'`{key}`' for key in self.sources)}, one of them and no more"
            )
        if self.composition and abs(sum(self.composition.values()) - 1) > 1e-6:
            raise ValueError(f"composition: fractions sum to {sum(self.composition.values()):g}; they must sum to 1")
        if min(self.supercell) < 1:
            raise ValueError(f"supercell: {list(self.supercell)} has a repeat below 1")
        if self.sqs and (not self.composition or self.surface):
            raise ValueError("sqs: needs `composition`, and no `surface`: it is a structure of the bulk")
        if self.surface and self.supercell[2] != 1:
            raise ValueError(
                f"supercell: {list(self.supercell)} would stack slabs; with `surface` give [n, m, 1], and the thickness as "
                "surface.layers"
            )
        return self


class RandomCrystal(Section):
    """A crystal of random symmetry, lattice and sites."""

    atoms: dict[Element, Annotated[int, Field(ge=1)]] = Field(
        min_length=1, description="Atoms of each element in the conventional cell, e.g. {Cu: 4, Au: 4}."
    )
    spacegroups: tuple[Annotated[int, Field(ge=1, le=230)], Annotated[int, Field(ge=1, le=230)]] = Field(
        (2, 230), description="First and last of the space groups to draw from."
    )
    volume_factor: Positive = Field(1.3, description="Volume of the cell against the one that pyxtal estimates.")


class IsolatedAtoms(Section):
    """One atom of each element of the system in vacuum."""

    vacuum: Positive = Field(6.0, description="Empty space on all sides, Å.")


class Dimers(Section):
    """Two atoms in vacuum, for each pair of elements of the system."""

    distances: list[Positive] = Field(min_length=1, description="Distances between the two, Å.")
    vacuum: Positive = Field(6.0, description="Empty space on all sides, Å.")


class Melt(Section):
    """MD of the crystal by the oracle itself, from which each copy takes a frame: for cheap oracles."""

    temperature: Positive = Field(
        description="Temperature in K (Langevin, fixed cell). A perfect crystal of a few dozen atoms melts well above its melting point only: about twice that."
    )
    steps: int = Field(500, ge=1, description="Steps of `exploration.timestep` before the first frame.")
    every: int = Field(50, ge=1, description="Steps between two frames.")


MOLECULES = ("isolated_atoms", "dimers")


class InitialStructures(StructureSource):
    """One family of generation 0: `count` distorted copies of a source."""

    sources: ClassVar[tuple[str, ...]] = ("prototype", "file", "random_crystal", *MOLECULES)

    random_crystal: RandomCrystal | None = Field(
        None,
        description="Instead of `prototype`: random symmetric crystals (pyxtal), another one for each copy. Cells differ: not for Gamma-point oracles.",
    )
    isolated_atoms: IsolatedAtoms | None = Field(
        None,
        description="Instead of `prototype`: each element alone in vacuum. Their energies are then the reference energies of the potential, which is zero for atoms far apart.",
    )
    dimers: Dimers | None = Field(
        None,
        description="Instead of `prototype`: pairs of atoms in vacuum, undistorted. Needs `isolated_atoms` in another family: only then is the energy of a pair far apart zero.",
    )
    melt: Melt | None = Field(
        None, description="Frames of a melt of the crystal instead of the crystal, by MD of the oracle."
    )
    count: int = Field(8, ge=1, description="Structures to make from this source (from each structure of a file).")
    rattles: list[Annotated[float, Field(ge=0)]] = Field(
        [],
        description="Standard deviations of the displacements in Å, used in turn. The largest should be at least the thermal displacement at the target temperature. Not needed for `random_crystal` and `melt`.",
    )
    rattle_temperature: Positive | None = Field(
        None,
        description="Instead of `rattles`: displacements of a harmonic crystal at this temperature (K), u = sqrt(3kT/(m w²)) with w from one displaced atom per element by the oracle; at most 0.1 of the nearest distance.",
    )
    strain: float = Field(
        0.03, ge=0, lt=0.5, description="Largest strain of all three lengths alike, drawn evenly from ± this."
    )
    shear: float = Field(0.03, ge=0, lt=0.5, description="Largest shear strain component, drawn evenly from ± this.")
    vacancies: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="Atoms to remove, used in turn."
    )
    interstitials: list[Annotated[int, Field(ge=0)]] = Field(
        [0],
        min_length=1,
        description="Atoms to add, used in turn: each of a random element of the system in the widest void, its neighbours pushed out to 0.85 of the sum of covalent radii.",
    )

    @model_validator(mode="after")
    def _one_rattle(self) -> "InitialStructures":
        needed = not (self.is_molecule or self.random_crystal or self.melt)
        given = bool(self.rattles) + (self.rattle_temperature is not None)
        if given > 1 or given < needed:
            raise ValueError(
                "give either `rattles` (a list in Å) or `rattle_temperature` (K), not both and not neither"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_source(self) -> "InitialStructures":
        useless = set(self.model_fields_set)
        if self.is_molecule:
            useless -= set(MOLECULES)
        elif self.random_crystal:
            useless &= {"formula", "a", "c", "cubic", "index", "composition", "sqs", "surface", "rattle_temperature"}
        else:
            useless = set()
        if useless:
            kind = next(key for key in self.sources if getattr(self, key) is not None)
            raise ValueError(f"{min(useless)}: means nothing with `{kind}`; remove it")
        if self.surface and max(self.interstitials) > 0:
            raise ValueError("interstitials: the widest void of a slab is its vacuum; remove them or `surface`")
        if self.melt and self.rattle_temperature:
            raise ValueError("rattle_temperature: a melt has no harmonic displacements; remove it, or give `rattles`")
        return self

    @property
    def is_molecule(self) -> bool:
        """One structure an element or a pair and distance, as they are: no copies, no distortion."""
        return any(getattr(self, key) is not None for key in MOLECULES)

    @property
    def copies(self) -> int:
        """Structures made from each source."""
        return 1 if self.is_molecule else self.count

    @property
    def redrawn(self) -> bool:
        """Whether each copy starts from another alloy or crystal."""
        return bool(self.composition and not (self.sqs or self.melt)) or self.random_crystal is not None


class Initial(Section):
    """Generation 0: structures from the config alone."""

    structures: list[InitialStructures] = Field(min_length=1, description="Families of initial structures.")
    min_distance: dict[ElementPair, Positive] = Field(
        {},
        description="Smallest distance allowed by pair of elements, Å; 0.7 of the sum of covalent radii where not given. A structure closer than this is made anew; a cut closer than this is refused.",
    )
