"""How frames of a walker are cut: the config's numbers, in one object that makes cuts of any size."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import StructureSource
from mlip_auto.cut_mode import Mode, choose_mode, find_bonding
from mlip_auto.cutting import (
    CutRefused,
    ExtractedStructure,
    ParentFrame,
    cut_cell,
    cut_cluster,
    refuse_too_close,
)
from mlip_auto.cutting_box import BoxShape, cut_box, describe_composition, shape_box
from mlip_auto.distances import allowed_distances
from mlip_auto.oracles import GAMMA_ONLY_CODES

FROZEN_MARGIN = 0.3  # Å beyond the cutoff: a relaxed atom that enters it would move gamma of the centre
DEFAULT_BUFFER = 0.8  # cutoffs around the core of a cluster: 186 atoms of Al within 1.8 cutoffs of 5 Å
CLEAN_DEPTH = 1.1  # cutoffs below a vacuum surface: from there on the oracle's forces are those of the frame


@dataclass(frozen=True)
class EmbeddingExtractor:
    """Cuts the surroundings of an atom out of a frame; lengths in Å.

    Attributes
    ----------
    mode, mode_reason
        `cluster`: neighbours within `core_radius` + `buffer`, not periodic, in `vacuum`; energy weight 0.
        `box`: `box` of the frame around the centre, periodic. Energy weight 1 where `trained_radius` makes every atom
        count, else 0. `cell`: the whole frame, every atom trained on.
    cutoff
        Radial cutoff of the potential: the centre's environment within it is the same in cut and frame.
    core_radius
        Within it all atoms stay as in the frame.
    trained_radius
        Within it atoms are trained on.
    allowed
        Smallest distance by sorted pair of elements; a cut with a closer pair is refused.
    max_atoms
        A larger cut is refused.
    may_grow
        Whether a cut that fails its audit may be made larger.
    """

    mode: Mode
    cutoff: float
    core_radius: float
    buffer: float
    trained_radius: float
    vacuum: float
    allowed: Mapping[tuple[str, str], float]
    box: BoxShape | None = None
    max_atoms: int = 200
    neutral: bool = False
    whole_molecules: bool = False
    may_grow: bool = False
    mode_reason: str = ""

    @classmethod
    def from_config(cls, config: CampaignConfig, source: StructureSource, frame: Atoms) -> "EmbeddingExtractor":
        """Extractor for frames like `frame` of a walker that started from `source`."""
        settings, cutoff = config.extraction, config.training.basis.cutoff
        core = settings.core_radius or cutoff
        buffer = settings.buffer or DEFAULT_BUFFER * cutoff
        bonding = find_bonding(settings, config.system.elements)
        box = (
            shape_box(frame, source, settings.box_side, max(core, cutoff) + FROZEN_MARGIN) if frame.pbc.all() else None
        )
        mode, reason = choose_mode(settings, bonding, frame, box)
        size_given = {"cell": True, "box": settings.box_side is not None, "cluster": settings.buffer is not None}
        gamma_only = config.dft.code in GAMMA_ONLY_CODES
        clean = max(core + buffer - CLEAN_DEPTH * cutoff, 0.0)
        trained = {"cell": math.inf, "box": core if gamma_only else math.inf, "cluster": min(core, clean)}
        return cls(
            mode=mode,
            cutoff=cutoff,
            core_radius=core,
            buffer=buffer,
            trained_radius=settings.trained_radius or trained[mode],
            vacuum=settings.vacuum,
            allowed=allowed_distances(config.system.elements, config.initial.min_distance),
            box=box,
            max_atoms=settings.max_atoms,
            neutral=bonding == "ionic",
            whole_molecules=bonding == "molecular",
            may_grow=not size_given[mode] and not gamma_only,
            mode_reason=reason,
        )

    @property
    def frozen_radius(self) -> float:
        """Within it no atom is moved or removed."""
        return max(self.core_radius, self.cutoff + FROZEN_MARGIN)

    def extract_cluster(self, frame: Atoms | ParentFrame, center: int) -> ExtractedStructure:
        """Cut the surroundings of atom `center` out of `frame`, without healing by relaxation and without audit.

        Raises
        ------
        CutRefused
            Too many atoms, atoms closer than allowed, or a box that cannot keep the environment of the centre.
        """
        parent = frame if isinstance(frame, ParentFrame) else ParentFrame(frame)
        if self.mode == "cell":
            self._refuse_too_large(len(parent.atoms))  # before millions of atoms are copied
        cut = self._cut(parent, center)
        self._refuse_too_large(len(cut.atoms))
        refuse_too_close(cut.atoms, self.allowed)
        self._refuse_changed_environment(parent, center, cut)
        cut.atoms.info.update(
            cut_mode=self.mode,
            mode_reason=self.mode_reason,
            composition_change=describe_composition(cut.atoms.numbers, parent.counts),
        )
        return cut

    def outline(self, frame: Atoms) -> Atoms:
        """A copy of `frame` with the cell and periodicity of its cuts, whose atoms are not yet chosen."""
        outline = frame.copy()
        if self.mode == "cluster":
            outline.pbc = False
        elif self.mode == "box" and self.box is not None:
            outline.set_cell(frame.cell[:] * np.array(self.box.fractions)[:, None])
        return outline

    def enlarge(self) -> "EmbeddingExtractor | None":
        """The same with a wider buffer or box; None where it may not grow."""
        if not self.may_grow:
            return None
        if self.mode == "cluster":
            return replace(self, buffer=self.buffer + 0.5 * self.cutoff)
        larger = self.box.grow() if self.box else None
        return replace(self, box=larger) if larger else None

    def _cut(self, parent: ParentFrame, center: int) -> ExtractedStructure:
        if self.mode == "cell":
            return cut_cell(parent, center)
        if self.mode == "cluster":
            radius = self.core_radius + self.buffer
            return cut_cluster(parent, center, radius, self.trained_radius, self.vacuum, self.whole_molecules)
        if self.box is None:
            raise CutRefused("a box is cut from a periodic frame only; use extraction.mode: cluster")
        radii = self.frozen_radius, self.trained_radius, self.cutoff
        return cut_box(parent, center, self.box, *radii, self.allowed, self.neutral)

    def _refuse_too_large(self, n_atoms: int) -> None:
        if n_atoms > self.max_atoms:
            cure = {
                "cell": "use extraction.mode: box",
                "box": "give a smaller extraction.box_side",
                "cluster": "give a smaller extraction.buffer, or use extraction.mode: box",
            }[self.mode]
            raise CutRefused(
                f"the {self.mode} has {n_atoms} atoms; extraction.max_atoms allows {self.max_atoms}: {cure}"
            )

    def _refuse_changed_environment(self, parent: ParentFrame, center: int, cut: ExtractedStructure) -> None:
        """Raise CutRefused where the centre's neighbours within the cutoff are not those of the frame."""
        parents, vectors = parent.tree.find(center, self.cutoff)
        members, cut_vectors = ParentFrame(cut.atoms).tree.find(cut.center_atom_index, self.cutoff)
        cut_parents = cut.atoms.arrays["parent_index"][members]
        order, cut_order = (
            np.lexsort((*np.round(found, 4).T, owners))
            for found, owners in ((vectors, parents), (cut_vectors, cut_parents))
        )
        if (
            len(parents) != len(members)
            or np.any(parents[order] != cut_parents[cut_order])
            or not np.allclose(vectors[order], cut_vectors[cut_order], atol=1e-6)
        ):
            raise CutRefused(
                f"the {self.mode} would change the surroundings of atom {center} within the cutoff "
                f"({len(parents)} neighbours in the frame, {len(members)} in the {self.mode})"
            )
