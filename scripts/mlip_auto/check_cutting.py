"""Can the cuts that the config asks for be made from its walkers? Seen on their start structures; nothing is run."""

import numpy as np
from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.config_conditions import Deformation
from mlip_auto.config_exploration import Walker
from mlip_auto.config_initial import StructureSource
from mlip_auto.cutting_box import ROUNDING
from mlip_auto.extractor import DEFAULT_BUFFER, EmbeddingExtractor
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
    core, buffer = settings.core_radius or cutoff, settings.buffer or DEFAULT_BUFFER * cutoff
    if settings.mode in ("auto", "box") and settings.box_side is not None and settings.box_side < 2 * core:
        return [
            f"extraction.core_radius: found {core:g} Å; a box of {settings.box_side:g} Å can keep the frame "
            "within half of that as it is: lower it, or raise extraction.box_side; what is trained on is "
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


def find_deformation_error(config: CampaignConfig, walker: Walker, start: Atoms) -> str | None:
    """The first deformation of `walker` that makes its boxes narrower than twice the cutoff; barostats are left out."""
    extractor = EmbeddingExtractor.from_config(config, walker.structure, start)
    if extractor.mode != "box" or extractor.box is None:
        return None
    needed = 2 * config.training.basis.cutoff
    for _, stages in walker.list_runs(config.exploration.steps):
        cell = start.cell.standard_form()[0][:]
        for index, stage in enumerate(stages):
            if stage.deform is None:
                continue
            cell = _deform_cell(cell, stage.deform, stage.steps * config.exploration.timestep / 1000)
            width = _narrowest(cell, stage.deform, extractor.box.fractions)
            if width < needed - ROUNDING:
                return (
                    f"{f'stages[{index}].' if walker.stages else ''}deform: leaves boxes that are {width:.4g} Å wide, "
                    f"and twice the cutoff is {needed:g} Å: deform less, or give a larger extraction.box_side"
                )
    return None


def _deform_cell(cell: np.ndarray, deform: Deformation, time: float) -> np.ndarray:
    """The cell (Å) after `time` (ps) of LAMMPS's `fix deform`, in LAMMPS's orientation, its tilts not flipped."""
    deformed = cell.copy()
    for component, strain in deform.final_strains(time).items():
        row, column = _place(component)
        deformed[row, column] += strain * cell[row, row]
    return deformed


def _narrowest(cell: np.ndarray, deform: Deformation, fractions: tuple[float, float, float]) -> float:
    """Smallest height (Å) of boxes on the way to `cell`: LAMMPS flips a tilt that has grown to half a length."""
    tilted = cell.copy()
    for component in deform.components:
        row, column = _place(component)
        if row != column:
            half = cell[column, column] / 2
            tilted[row, column] = np.clip(cell[row, column], -half, half)
    return float(cell_heights(tilted * np.array(fractions)[:, None]).min())


def _place(component: str) -> tuple[int, int]:
    """Row and column of a component in a cell: `xy` is the x of the second vector."""
    return "xyz".index(component[-1]), "xyz".index(component[0])


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
