"""Sections of the config that name structures: where one comes from, and the families of generation 0."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from mlip_auto.config_types import Element, ElementPair, Positive, Section

Supercell = Annotated[tuple[int, int, int], Field(description="Repeats along the three cell vectors.")]


class StructureSource(Section):
    """A crystal to build (`prototype`) or a file to read (`file`): exactly one of the two."""

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

    @model_validator(mode="after")
    def _one_source(self) -> "StructureSource":
        if (self.prototype is None) == (self.file is None):
            raise ValueError(
                "give either `prototype` (a crystal to build) or `file` (a structure to read), not both and not neither"
            )
        if self.composition and abs(sum(self.composition.values()) - 1) > 1e-6:
            raise ValueError(f"composition: fractions sum to {sum(self.composition.values()):g}; they must sum to 1")
        if min(self.supercell) < 1:
            raise ValueError(f"supercell: {list(self.supercell)} has a repeat below 1")
        return self


class InitialStructures(StructureSource):
    """One family of generation 0: `count` distorted copies of a source."""

    count: int = Field(8, ge=1, description="Structures to make from this source (from each structure of a file).")
    rattles: list[Annotated[float, Field(ge=0)]] = Field(
        [],
        description="Standard deviations of the displacements in Å, used in turn. Largest at least the thermal displacement of the target temperature.",
    )
    rattle_temperature: Positive | None = Field(
        None,
        description="Instead of `rattles`: displacements of a harmonic crystal at this temperature (K), u = sqrt(3kT/(m w²)) with w from one displaced atom per element by the oracle; at most 0.1 of the nearest distance.",
    )
    strain: float = Field(
        0.03, ge=0, lt=0.5, description="Largest volumetric strain (of each length), drawn evenly from ± this."
    )
    shear: float = Field(0.03, ge=0, lt=0.5, description="Largest shear strain component, drawn evenly from ± this.")
    vacancies: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="Atoms to remove, used in turn."
    )

    @model_validator(mode="after")
    def _one_rattle(self) -> "InitialStructures":
        if bool(self.rattles) == (self.rattle_temperature is not None):
            raise ValueError(
                "give either `rattles` (a list in Å) or `rattle_temperature` (K), not both and not neither"
            )
        return self


class Initial(Section):
    """Generation 0: structures from the config alone."""

    structures: list[InitialStructures] = Field(min_length=1, description="Families of initial structures.")
    min_distance: dict[ElementPair, Positive] = Field(
        {},
        description="Smallest distance allowed by pair of elements, Å; 0.7 of the sum of covalent radii where not given. A structure closer than this is made anew; a cut closer than this is refused.",
    )
