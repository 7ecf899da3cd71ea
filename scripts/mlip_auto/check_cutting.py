"""Can the cuts that the config asks for be made from its walkers? Seen on their start structures; nothing is run."""

import numpy as np
from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import StructureSource
from mlip_auto.cutting_box import ROUNDING
from mlip_auto.extractor import EmbeddingExtractor
from mlip_auto.neighbours import cell_heights, find_neighbours

OTHER_SIDE = 0.02  # relative: a box as whole crystal cells this far from what was asked for is worth a word


def find_number_errors(config: CampaignConfig) -> list[str]:
    """Errors of the numbers of `extraction` among themselves."""
    settings, cutoff = config.extraction, config.training.basis.cutoff
    if settings.mode in ("auto", "box") and settings.box_side is not None and settings.box_side < 2 * cutoff:
        return [
            f"extraction.box_side: found {settings.box_side:g} Å; at least twice the cutoff ({2 * cutoff:g} Å), or an "
            "atom meets its own image: raise it, or lower training.basis.cutoff"
        ]
    core, buffer = settings.core_radius or cutoff, settings.buffer or cutoff
    if settings.mode in ("auto", "box") and settings.box_side is not None and settings.box_side < 2 * core:
        return [
            f"extraction.core_radius: found {core:g} Å; a box of {settings.box_side:g} Å can keep the frame "
            "within half of that as it is: lower it, or raise extraction.box_side; to train on the whole box give "
            "extraction.trained_radius"
        ]
    if settings.mode in ("auto", "cluster") and core + buffer < cutoff:
        return [
            f"extraction.buffer: found {buffer:g} Å around a core of {core:g} Å; together at least the cutoff "
            f"({cutoff:g} Å), or the cut changes the centre's own neighbours: raise it"
        ]
    return []


def judge_cuts(config: CampaignConfig, source: StructureSource, start: Atoms) -> tuple[list[str], list[str]]:
    """Errors and warnings of the cuts from a walker that starts from `start`, built from `source`."""
    extractor = EmbeddingExtractor.from_config(config, source, start)
    judge = {"cell": _judge_cell, "box": _judge_box, "cluster": _judge_cluster}[extractor.mode]
    return judge(config, extractor, start)


def _judge_cell(config: CampaignConfig, extractor: EmbeddingExtractor, start: Atoms) -> tuple[list[str], list[str]]:
    return _judge_size(extractor, len(start), "smaller `supercell`, or extraction.mode: box"), []


def _judge_cluster(config: CampaignConfig, extractor: EmbeddingExtractor, start: Atoms) -> tuple[list[str], list[str]]:
    number = 1 + len(find_neighbours(start, 0, extractor.core_radius + extractor.buffer)[0])
    return _judge_size(extractor, number, "a narrower extraction.buffer, or extraction.mode: box"), []


def _judge_box(config: CampaignConfig, extractor: EmbeddingExtractor, start: Atoms) -> tuple[list[str], list[str]]:
    side, needed = config.extraction.box_side, 2 * config.training.basis.cutoff
    if extractor.box is None:
        return ["a box is cut from a cell that is periodic in all directions; set extraction.mode: cluster"], []
    box = extractor.outline(start)
    sides, width = box.cell.lengths(), cell_heights(box.cell[:]).min()
    named = f"extraction.box_side: found {side:g} Å" if side else "extraction.box_side: none is given"
    if max(extractor.box.fractions) > 1 + 1e-9 or (side is None and width < needed - ROUNDING):
        return [
            f"the MD cell {describe_cell(start)} does not hold the box of {side or needed:g} Å to be cut from it; "
            f"enlarge `supercell`, or lower extraction.box_side (at least {needed:g} Å)"
        ], []
    if width < needed - ROUNDING:
        return [
            f"{named}; as whole crystal cells it is {width:.4g} Å wide, and twice the cutoff is {needed:g} Å: raise it"
        ], []
    number = extractor.box.count_atoms(len(start))
    too_large = _judge_size(extractor, number, "a smaller extraction.box_side (or none) or training.basis.cutoff")
    if side and np.abs(sides - side).max() > OTHER_SIDE * side:
        lengths = " × ".join(f"{length:.4g}" for length in sides)
        return too_large, [f"{named}, no multiple of the crystal cell; boxes of {lengths} Å are cut instead"]
    return too_large, []


def _judge_size(extractor: EmbeddingExtractor, number: int, cure: str) -> list[str]:
    if number <= extractor.max_atoms:
        return []
    return [
        f"extraction.max_atoms: found {extractor.max_atoms}; the {extractor.mode} cut here has {number} atoms and "
        f"would be refused: raise it, or give {cure}"
    ]


def describe_cell(atoms: Atoms) -> str:
    if not atoms.pbc.any():
        return "no periodic cell"
    return " × ".join(f"{length:.4g}" for length in atoms.cell.lengths()) + " Å"
