"""What is cut out of a halted MD frame for a label: a cluster in vacuum, a periodic box, or the whole cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import StructureSource
from mlip_auto.distances import allowed_distances, describe_too_close, find_too_close, list_too_close
from mlip_auto.initial_sources import build_source
from mlip_auto.neighbours import cell_heights, find_neighbours
from mlip_auto.structures import structure_id
from mlip_auto.walkers import find_walker

FROZEN_MARGIN = 0.3  # Å beyond the cutoff: atoms there may not change either, or gamma of the centre moves
FILL_MARGIN = 1.0  # Å beyond a box's faces: where the atom of a site is looked for that no atom inside occupies
ROUNDING = 1e-6  # Å: a box of exactly twice the cutoff is wide enough
ATTEMPTS_PER_CUT = 10  # an exploded frame has thousands of centres, all of them refused


class CutRefused(ValueError):
    """A cut that would be wrong or unphysical is not made; the message says why."""


@dataclass(frozen=True)
class ExtractedStructure:
    """A cut.

    Attributes
    ----------
    atoms
        info `energy_weight`; arrays `force_mask`, `parent_index` (index in the frame), `gamma` where the frame has it.
    center_atom_index
        The centre in `atoms`.
    force_mask : dtype=int, shape=(n_atoms,)
        1 for the core, whose forces are trained on; 0 for the buffer.
    """

    atoms: Atoms
    center_atom_index: int
    force_mask: np.ndarray


@dataclass(frozen=True)
class EmbeddingExtractor:
    """Cuts the surroundings of an atom out of a frame; lengths in Å.

    Attributes
    ----------
    mode
        `cluster`: neighbours within `core_radius` + `buffer`, not periodic, in `vacuum`; energy weight 0.
        `box`: `box_fractions` of the frame's cell vectors around the centre, periodic. A core smaller than the box has
        energy weight 0; where `core_radius` exceeds half the box diagonal every atom is core and the energy counts.
        `cell`: the whole frame, every atom core.
    cutoff
        Radial cutoff of the potential: the centre's environment within it is the same in cut and frame.
    allowed
        Smallest distance by sorted pair of elements; a cut with a closer pair is refused.
    """

    mode: Literal["cluster", "box", "cell"]
    cutoff: float
    core_radius: float
    buffer: float
    vacuum: float
    allowed: Mapping[tuple[str, str], float]
    box_fractions: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def from_config(
        cls, config: CampaignConfig, source: StructureSource, directory: Path = Path()
    ) -> "EmbeddingExtractor":
        """Extractor for the frames of a walker that started from `source`."""
        settings, cutoff = config.extraction, config.training.basis.cutoff
        fractions = (1.0, 1.0, 1.0)
        if settings.mode == "box" and settings.box_side is not None:
            start = build_source(source, config.system.elements, directory=directory)[0]
            fractions = box_fractions(start, source, settings.box_side)
        return cls(
            mode=settings.mode,
            cutoff=cutoff,
            core_radius=settings.core_radius or cutoff,
            buffer=settings.buffer or cutoff,
            vacuum=settings.vacuum,
            allowed=allowed_distances(config.system.elements, config.initial.min_distance),
            box_fractions=fractions,
        )

    def extract_cluster(self, frame: Atoms, center: int) -> ExtractedStructure:
        """Cut the surroundings of atom `center` out of `frame`.

        Raises
        ------
        CutRefused
            Atoms closer than allowed, or a box that cannot keep the environment of the centre as it is.
        """
        cut = {"cluster": self._cut_cluster, "box": self._cut_box, "cell": self._cut_cell}[self.mode](frame, center)
        too_close = find_too_close(cut.atoms, self.allowed)
        if too_close is not None:
            raise CutRefused(describe_too_close(cut.atoms, too_close))
        return cut

    def _cut_cluster(self, frame: Atoms, center: int) -> ExtractedStructure:
        indices, vectors = find_neighbours(frame, center, self.core_radius + self.buffer)
        parents = np.concatenate(([center], indices))
        vectors = np.concatenate((np.zeros((1, 3)), vectors))
        atoms = Atoms(frame.numbers[parents], positions=vectors, pbc=False)
        atoms.center(vacuum=self.vacuum)
        mask = np.linalg.norm(vectors, axis=1) < self.core_radius
        return _finish(atoms, frame, parents, mask, energy_weight=0.0)

    def _cut_cell(self, frame: Atoms, center: int) -> ExtractedStructure:
        atoms = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.wrap()
        parents = np.arange(len(frame))
        mask = np.ones(len(frame), dtype=bool)
        return _finish(atoms, frame, parents, mask, energy_weight=1.0, center=center)

    def _cut_box(self, frame: Atoms, center: int) -> ExtractedStructure:
        """A box commensurate with the crystal, healed at its faces.

        Sites at opposite faces are the same site of the box, so thermal motion puts both of their atoms inside, or
        none. Atoms are therefore taken in the order: close to the centre, inside, just outside; and one that comes
        too close to an atom taken before is left out. Atoms from outside only replace missing ones of their element.
        """
        fractions = np.array(self.box_fractions)
        box = frame.cell[:] * fractions[:, None]
        heights = cell_heights(box)
        if not frame.pbc.all():
            raise CutRefused("a box is cut from a periodic frame only; use extraction.mode: cluster")
        if heights.min() < 2 * self.cutoff - ROUNDING:
            raise CutRefused(
                f"the box is {heights.min():.2f} Å wide in this frame, "
                f"less than twice the cutoff ({2 * self.cutoff:g} Å)"
            )
        offsets = frame.cell.scaled_positions(frame.positions - frame.positions[center])
        offsets -= np.floor(offsets + 0.5)
        distances = np.linalg.norm(offsets @ frame.cell[:], axis=1)
        scaled = offsets / fractions
        inside = np.all((scaled >= -0.5) & (scaled < 0.5), axis=1)
        frozen = distances < min(self.cutoff + FROZEN_MARGIN, heights.min() / 2)
        near = np.all((np.abs(scaled) - 0.5) * heights < FILL_MARGIN, axis=1) | inside
        nearby = np.flatnonzero(near)
        nearby = nearby[np.lexsort((distances[nearby], ~inside[nearby], ~frozen[nearby]))]

        wrapped = scaled[nearby] - np.floor(scaled[nearby] + 0.5)
        trial = Atoms(frame.numbers[nearby], scaled_positions=wrapped + 0.5, cell=box, pbc=True)
        kept = np.flatnonzero(self._take_in_order(trial, frame, inside[nearby], frozen[nearby]))
        kept[1:] = kept[1:][np.argsort(nearby[kept[1:]])]  # the centre, then the order of the frame
        mask = np.linalg.norm(wrapped[kept] @ box, axis=1) < self.core_radius
        cut = _finish(trial[kept], frame, nearby[kept], mask, energy_weight=float(mask.all()))
        self._refuse_changed_environment(frame, center, cut)
        return cut

    def _take_in_order(self, trial: Atoms, frame: Atoms, inside: np.ndarray, frozen: np.ndarray) -> np.ndarray:
        """Which atoms of `trial` make the box, dtype=bool; the atoms are in order of precedence."""
        room = {
            number: round(count * float(np.prod(self.box_fractions)))
            for number, count in zip(*np.unique(frame.numbers, return_counts=True), strict=True)
        }
        rivals: list[list[int]] = [[] for _ in trial]
        for i, j in zip(*list_too_close(trial, self.allowed)[:2], strict=True):
            rivals[i].append(j)
        kept = np.zeros(len(trial), dtype=bool)
        for atom, number in enumerate(trial.numbers):
            wanted = inside[atom] or room[number] > 0
            kept[atom] = frozen[atom] or (wanted and not kept[rivals[atom]].any())
            room[number] -= int(kept[atom])
        return kept

    def _refuse_changed_environment(self, frame: Atoms, center: int, cut: ExtractedStructure) -> None:
        parents, vectors = find_neighbours(frame, center, self.cutoff)
        members, cut_vectors = find_neighbours(cut.atoms, cut.center_atom_index, self.cutoff)
        cut_parents = cut.atoms.arrays["parent_index"][members]
        if (
            len(parents) != len(members)
            or np.any(parents != cut_parents)
            or not np.allclose(vectors, cut_vectors, atol=1e-6)
        ):
            raise CutRefused(
                f"the box would change the surroundings of atom {center} within the cutoff "
                f"({len(parents)} neighbours in the frame, {len(members)} in the box)"
            )


def _finish(
    atoms: Atoms, frame: Atoms, parents: np.ndarray, mask: np.ndarray, energy_weight: float, center: int = 0
) -> ExtractedStructure:
    force_mask = mask.astype(int)
    atoms.info["energy_weight"] = energy_weight
    atoms.set_array("force_mask", force_mask)
    atoms.set_array("parent_index", parents)
    if "gamma" in frame.arrays:
        atoms.set_array("gamma", frame.arrays["gamma"][parents])
    return ExtractedStructure(atoms, center, force_mask)


def box_fractions(start: Atoms, source: StructureSource, box_side: float) -> tuple[float, float, float]:
    """Parts of the MD cell's vectors that span a box of side `box_side` (Å), as whole cells of the crystal.

    The box has the whole number of crystal cells nearest to `box_side`, counted in the undistorted `start`, so that it
    stays commensurate in a frame that heat or pressure has strained. A file that is not repeated names no crystal
    cell: its box is `box_side` as it stands.
    """
    lengths = start.cell.lengths()
    if source.file is not None and max(source.supercell) == 1:
        fractions = box_side / lengths
    else:
        repeats = np.array(source.supercell)
        fractions = np.maximum(np.round(box_side / (lengths / repeats)), 1) / repeats
    return tuple(float(fraction) for fraction in fractions)  # type: ignore[return-value]


def choose_centers(
    frames: Sequence[Atoms], gamma_select: float, cutoff: float, one_per_frame: bool = False
) -> Iterator[tuple[int, int]]:
    """Atoms worth a cut as (index of the frame, index of the atom), the most wanted first.

    First the atom of largest gamma in the last frame, which halted MD; then atoms above `gamma_select` in any of the
    frames by falling gamma. Atoms within `cutoff` (Å) of a chosen one in the same frame are left out: its cut has them.
    """
    gammas = np.concatenate([frame.arrays["gamma"] for frame in frames])
    numbers = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    members = np.concatenate([np.arange(len(frame)) for frame in frames])
    last = np.flatnonzero(numbers == len(frames) - 1)
    above = np.flatnonzero(gammas > gamma_select)
    ranked = np.append(last[np.argmax(gammas[last])], above[np.argsort(-gammas[above], kind="stable")])
    chosen: list[list[int]] = [[] for _ in frames]
    for entry in ranked:
        number, atom = int(numbers[entry]), int(members[entry])
        frame, others = frames[number], chosen[number]
        covered = others and (one_per_frame or frame.get_distances(atom, others, mic=True).min() < cutoff)
        if not covered:
            others.append(atom)
            yield number, atom


def extract_from_walker(
    frames: Sequence[Atoms],
    outcome: Mapping[str, Any],
    config: CampaignConfig,
    generation: int,
    directory: Path = Path(),
) -> tuple[list[Atoms], list[str]]:
    """Cuts of one walker, at most `extraction.max_clusters`.

    Parameters
    ----------
    frames
        Last frames of the run, the halting one last: arrays `gamma`, info `step`.
    outcome
        Content of the walker's outcome.json; only a halted or crashed run is cut.
    directory
        Working folder of the campaign, where relative structure files start.

    Returns
    -------
    cuts : list of Atoms
        With the provenance of `structures`, duplicates dropped.
    refusals : list of str
        Which cuts were not made, and why.
    """
    sound = [frame for frame in frames if np.isfinite(frame.positions).all()]
    refusals = [f"{outcome['walker']}: a frame without finite positions is not cut"] * (len(frames) - len(sound))
    if outcome["outcome"] not in ("halted", "crashed") or not sound:
        return [], refusals
    walker = outcome["walker"]
    source = find_walker(config, walker, generation).structure
    extractor = EmbeddingExtractor.from_config(config, source, directory)
    centers = choose_centers(
        sound, config.exploration.gamma_select, extractor.cutoff, one_per_frame=extractor.mode == "cell"
    )
    wanted = config.extraction.max_clusters
    cuts: dict[str, Atoms] = {}
    for number, atom in islice(centers, ATTEMPTS_PER_CUT * wanted):
        if len(cuts) == wanted:
            break
        frame = sound[number]
        step, gamma = int(frame.info["step"]), float(frame.arrays["gamma"][atom])
        where = f"generation {generation}, {walker}, step {step}, atom {atom}, gamma {gamma:.2f}"
        try:
            cut = extractor.extract_cluster(frame, atom)
        except CutRefused as refused:
            refusals.append(f"{where}: {refused}")
            continue
        atoms = cut.atoms
        identifier = structure_id(atoms)
        atoms.info.update(
            structure_id=identifier,
            config_type="active_learning",
            generation=generation,
            walker=walker,
            step=step,
            origin=f"{extractor.mode} from {where}",
            center_atom_index=cut.center_atom_index,
            gamma=gamma,
        )
        cuts.setdefault(identifier, atoms)
    return list(cuts.values()), refusals
