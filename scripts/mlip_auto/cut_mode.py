"""Which way of cutting suits a frame: the choice of `extraction.mode: auto`, with its reason."""

from collections.abc import Iterable
from typing import Literal

from ase import Atoms
from ase.data import chemical_symbols

from mlip_auto.config_extraction import Extraction
from mlip_auto.cutting_box import BoxShape

Mode = Literal["cell", "box", "cluster"]
Bonding = Literal["metallic", "covalent", "ionic", "molecular"]

NONMETALS = frozenset(
    chemical_symbols[number] for number in (1, 2, *range(5, 11), *range(14, 19), *range(32, 37), *range(52, 55), 85, 86)
)
ANIONS = frozenset({"O", "F", "Cl", "Br", "I"})  # with a metal they make an ionic compound


def guess_bonding(elements: Iterable[str]) -> Bonding:
    """Bonding from the elements alone: metals; a metal with oxygen or a halogen is ionic; all else counts as covalent.

    Molecular crystals and liquids are not told from covalent solids by their elements: the user says so.
    """
    present = set(elements)
    if not present & NONMETALS:
        return "metallic"
    return "ionic" if present & ANIONS and present - NONMETALS else "covalent"


def find_bonding(settings: Extraction, elements: Iterable[str]) -> Bonding:
    return guess_bonding(elements) if settings.bonding == "auto" else settings.bonding


def choose_mode(settings: Extraction, bonding: Bonding, frame: Atoms, shape: BoxShape | None) -> tuple[Mode, str]:
    """How frames like `frame` are cut, and why.

    Parameters
    ----------
    shape
        The box that would be cut; None where the frame is not periodic.
    """
    if settings.mode != "auto":
        return settings.mode, f"extraction.mode: {settings.mode}"
    if len(frame) <= settings.max_atoms:
        return "cell", f"the frame's {len(frame)} atoms are no more than extraction.max_atoms ({settings.max_atoms})"
    large = f"the frame has {len(frame)} atoms, more than extraction.max_atoms ({settings.max_atoms})"
    if bonding == "molecular":
        return "cluster", f"{large}; whole molecules stand in vacuum with no bond cut, the faces of a box cut some"
    if shape is None:
        return "cluster", f"{large}; it is not periodic in all directions, as a box must be"
    number = shape.count_atoms(len(frame))
    if max(shape.fractions) > 1 or number > settings.max_atoms:
        return "cluster", f"{large}; so would be its box of {number} atoms, or it does not hold that box"
    return "box", f"{large}; bonding is {bonding}, and a periodic box of {number} atoms has no surface"
