"""A periodic box out of a larger periodic frame: its shape, which atoms make it, its composition."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import gcd

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from mlip_auto.config_initial import StructureSource
from mlip_auto.cutting import CutRefused, ExtractedStructure, ParentFrame, finish_cut
from mlip_auto.distances import list_too_close
from mlip_auto.neighbours import cell_heights

FILL_MARGIN = 1.0  # Å beyond a box's faces: where the atom of a site is looked for that no atom inside occupies
ROUNDING = 1e-6  # Å: a box of exactly twice the cutoff is wide enough


@dataclass(frozen=True)
class BoxShape:
    """A box as parts of a frame's cell vectors, so that it follows the frame's strain.

    Attributes
    ----------
    fractions
        Parts of the three cell vectors.
    steps
        By how much each may grow at once: a crystal cell, or half the cutoff where there is no crystal.
    """

    fractions: tuple[float, float, float]
    steps: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def count_atoms(self, n_frame: int) -> int:
        """Atoms of a box cut from a frame of `n_frame` atoms, of even density."""
        return round(n_frame * float(np.prod(self.fractions)))

    def grow(self) -> "BoxShape | None":
        """The next larger box; None when it already is the whole frame."""
        larger = np.minimum(np.add(self.fractions, self.steps), 1.0)
        return None if np.allclose(larger, self.fractions) else BoxShape(_triple(larger), self.steps)


def shape_box(frame: Atoms, source: StructureSource, side: float | None, radius: float) -> BoxShape:
    """The box to cut from frames of a walker that started from `source`.

    The box is a whole number of crystal cells along each vector: the number nearest to `side` (Å), or the smallest
    that keeps a sphere of `radius` (Å) away from its own images. A file that is not repeated names no crystal cell: its
    box is `side` as it stands, or twice `radius`.
    """
    lengths, heights = frame.cell.lengths(), cell_heights(frame.cell.complete()[:])
    repeats = np.array(source.supercell)
    if source.prototype is None and max(source.supercell) == 1:
        fractions = np.divide(side, lengths) if side else np.minimum(2 * radius / heights, 1)
        return BoxShape(_triple(fractions), _triple(0.5 * radius / heights))
    if side:
        cells = np.maximum(np.round(side / (lengths / repeats)), 1)
    else:
        cells = np.minimum(np.ceil((2 * radius - ROUNDING) / (heights / repeats)), repeats)
    return BoxShape(_triple(cells / repeats), _triple(1 / repeats))


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def cut_box(
    parent: ParentFrame,
    center: int,
    shape: BoxShape,
    frozen_radius: float,
    trained_radius: float,
    cutoff: float,
    allowed: Mapping[tuple[str, str], float],
    neutral: bool,
) -> ExtractedStructure:
    """A box commensurate with the crystal, one atom for each of its sites; lengths in Å.

    Sites at opposite faces are the same site of the box, so thermal motion puts both of their atoms inside, or none.
    Atoms are therefore taken in the order: within `frozen_radius` of the centre, inside, just outside; and one that
    comes closer than `allowed` to an atom taken before is left out. Atoms from outside only replace missing ones of
    their element. With `neutral` the ratio of the elements becomes that of the frame.

    Raises
    ------
    CutRefused
        The box is narrower than twice the cutoff, the frame is not periodic, or too few atoms may go for a neutral box.
    """
    frame = parent.atoms
    box = frame.cell[:] * np.array(shape.fractions)[:, None]
    if not frame.pbc.all():
        raise CutRefused("a box is cut from a periodic frame only; use extraction.mode: cluster")
    heights = cell_heights(box)
    if heights.min() < 2 * cutoff - ROUNDING:
        raise CutRefused(
            f"the box is {heights.min():.2f} Å wide in this frame, less than twice the cutoff ({2 * cutoff:g} Å)"
        )
    nearby, vectors = _find_nearby(parent, center, box)
    scaled = vectors @ np.linalg.inv(box)
    distances = np.linalg.norm(vectors, axis=1)
    inside = np.all((scaled >= -0.5) & (scaled < 0.5), axis=1)
    frozen = distances < min(frozen_radius, heights.min() / 2)
    order = np.lexsort((distances, ~inside, ~frozen))
    nearby, scaled, inside, frozen = nearby[order], scaled[order], inside[order], frozen[order]

    wrapped = scaled - np.floor(scaled + 0.5)
    trial = Atoms(frame.numbers[nearby], scaled_positions=wrapped + 0.5, cell=box, pbc=True)
    trial.set_array("parent_index", nearby)
    share = float(np.prod(shape.fractions))
    room = {number: round(count * share) for number, count in parent.counts.items()}
    kept = np.flatnonzero(_take_in_order(trial, room, inside, frozen, allowed))
    if neutral:
        kept = kept[_restore_ratio(trial.numbers[kept], frozen[kept], parent.counts)]
    kept[1:] = kept[1:][np.argsort(nearby[kept[1:]])]  # the centre, then the order of the frame
    mask = np.linalg.norm(wrapped[kept] @ box, axis=1) < trained_radius
    return finish_cut(trial[kept], parent, mask, energy_weight=float(mask.all()))


def _find_nearby(parent: ParentFrame, center: int, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atoms inside the box around the centre or just outside, each once, the centre first; and their vectors (Å)."""
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) @ box
    indices, vectors = parent.tree.find(center, np.linalg.norm(corners, axis=1).max() + 2 * FILL_MARGIN)
    in_frame = vectors @ np.linalg.inv(parent.atoms.cell[:])
    beyond = (np.abs(vectors @ np.linalg.inv(box)) - 0.5) * cell_heights(box)
    near = np.all((np.abs(in_frame) < 0.5 + 1e-9) & (beyond < FILL_MARGIN), axis=1) & (indices != center)
    indices, vectors = indices[near], vectors[near]
    indices, first = np.unique(indices, return_index=True)
    return np.append(center, indices), np.vstack((np.zeros(3), vectors[first]))


def _take_in_order(
    trial: Atoms,
    room: dict[int, int],
    inside: np.ndarray,
    frozen: np.ndarray,
    allowed: Mapping[tuple[str, str], float],
) -> np.ndarray:
    """Which atoms of `trial` make the box, dtype=bool; the atoms are in order of precedence.

    `room` is how many atoms of each atomic number the box has by the density of its frame.
    """
    left = dict(room)
    rivals: list[list[int]] = [[] for _ in trial]
    for i, j in zip(*list_too_close(trial, allowed)[:2], strict=True):
        rivals[i].append(j)
    kept = np.zeros(len(trial), dtype=bool)
    for atom, number in enumerate(trial.numbers):
        wanted = inside[atom] or left[number] > 0
        kept[atom] = frozen[atom] or (wanted and not kept[rivals[atom]].any())
        left[number] -= int(kept[atom])
    return kept


def _restore_ratio(numbers: np.ndarray, frozen: np.ndarray, frame_counts: Mapping[int, int]) -> np.ndarray:
    """Indices of what stays so that the elements have the ratio of the frame: the last in order go first."""
    divisor = reduce(gcd, frame_counts.values())
    unit = {number: count // divisor for number, count in frame_counts.items()}
    units = min(int(np.sum(numbers == number)) // count for number, count in unit.items())
    stays = np.ones(len(numbers), dtype=bool)
    for number, count in unit.items():
        of_element = np.flatnonzero(numbers == number)
        surplus = of_element[units * count :]
        if units == 0 or frozen[surplus].any():
            raise CutRefused(
                f"no box of the frame's composition: {len(surplus)} atoms of {chemical_symbols[number]} would have to "
                "go, some of them near the centre; give a larger extraction.box_side or extraction.max_atoms"
            )
        stays[surplus] = False
    return np.flatnonzero(stays)


def describe_composition(numbers: np.ndarray, frame_counts: Mapping[int, int]) -> str:
    """By how many atoms each element is off what the frame's composition gives as many atoms; `none` if it is not."""
    total = sum(frame_counts.values())
    changes = []
    for number, count in frame_counts.items():
        change = int(np.sum(numbers == number)) - round(len(numbers) * count / total)
        if change:
            changes.append(f"{chemical_symbols[number]} {change:+d}")
    return ", ".join(changes) or "none"
