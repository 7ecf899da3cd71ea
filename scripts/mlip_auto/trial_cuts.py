"""The frame of a buffer audit and the trial cuts from it: clusters of each width, boxes of each number of cells."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import StructureSource
from mlip_auto.cut_mode import find_bonding
from mlip_auto.cutting import CutRefused, ParentFrame
from mlip_auto.cutting_box import BoxShape
from mlip_auto.distances import allowed_distances
from mlip_auto.extractor import EmbeddingExtractor
from mlip_auto.lammps_output import read_last_frames
from mlip_auto.neighbours import cell_heights
from mlip_auto.paths import CampaignPaths
from mlip_auto.starts import build_start
from mlip_auto.state import last_generation, read_summaries
from mlip_auto.structures import structure_id
from mlip_auto.walkers import base_walkers, find_walker


@dataclass(frozen=True)
class AuditFrame:
    """The frame that is cut, where it comes from, and the crystal it is made of (None: not known, no boxes)."""

    atoms: Atoms
    origin: str
    crystal: StructureSource | None


@dataclass(frozen=True)
class TrialCut:
    """One cut: `core` are the indices of its core atoms, in the order of their indices in the frame."""

    mode: str
    buffer: float
    center: int
    atoms: Atoms
    core: np.ndarray

    @property
    def parents(self) -> np.ndarray:
        """Index in the frame of each core atom."""
        return self.atoms.arrays["parent_index"][self.core]


def find_audit_frame(
    config: CampaignConfig, paths: CampaignPaths, file: Path | None, walker: str | None, rattle: float
) -> AuditFrame:
    """The frame in `file`; else that in which the last walker (or `walker`) halted; else a rattled start structure.

    Parameters
    ----------
    rattle
        Å, standard deviation of the displacements where no MD has run yet.

    Raises
    ------
    ValueError
        The file cannot be read or holds other elements; no walker of this name has halted.
    """
    if file is not None:
        return AuditFrame(_read_frame(file, config.system.elements), str(file), None)
    for summary in reversed(read_summaries(paths)):
        for name, outcome in summary["walkers"].items():
            if walker not in (None, name) or outcome["outcome"] not in ("halted", "crashed"):
                continue
            if frames := read_last_frames(paths.generation(summary["generation"]).walker(name).dump):
                origin = f"{name} of generation {summary['generation']}, step {frames[-1].info['step']}"
                return AuditFrame(frames[-1], origin, find_walker(config, name).structure)
    if walker is not None:
        raise ValueError(f"--walker: {walker}: no walker of this name has halted in {paths.results}")
    first = base_walkers(config)[0]
    atoms = build_start(config, first, directory=paths.root)
    atoms.rattle(rattle, rng=np.random.default_rng(config.seed))
    return AuditFrame(atoms, f"start of {first.name}, rattled by {rattle:g} Å", first.structure)


def _read_frame(file: Path, elements: Sequence[str]) -> Atoms:
    if not file.is_file():
        raise ValueError(f"--frame: {file}: no such file")
    try:
        *_, atoms = ase.io.iread(file)
    except Exception as error:  # ASE's readers raise anything; the cause stays attached
        raise ValueError(f"--frame: {file}: ASE cannot read it: {type(error).__name__}: {error}") from error
    if strangers := sorted(set(atoms.symbols) - set(elements)):
        raise ValueError(f"--frame: {file} holds {', '.join(strangers)}; system.elements allows {', '.join(elements)}")
    return atoms


def find_potential(paths: CampaignPaths) -> Path | None:
    """potential.yaml of the last generation that has been fitted; None: there is none yet."""
    potentials = (paths.generation(number).potential for number in range(last_generation(paths), -1, -1))
    return next((potential for potential in potentials if potential.exists()), None)


def choose_audit_centers(atoms: Atoms, count: int, seed: int) -> list[int]:
    """The atom of largest gamma where the frame has gamma, then atoms drawn at random."""
    drawn = [int(atom) for atom in np.random.default_rng(seed).permutation(len(atoms))]
    first = [int(np.argmax(atoms.arrays["gamma"]))] if "gamma" in atoms.arrays else []
    return list(dict.fromkeys([*first, *drawn]))[:count]


def make_trial_cuts(
    frame: AuditFrame,
    centers: Sequence[int],
    buffers: Sequence[float],
    core_radius: float,
    max_atoms: int,
    config: CampaignConfig,
) -> tuple[list[TrialCut], list[str]]:
    """Clusters of each buffer width and, where the crystal is known, boxes of each whole number of its cells.

    Returns
    -------
    cuts : list of TrialCut
    left_out : list of str
        Which cuts were not made, and why.
    """
    bonding = find_bonding(config.extraction, config.system.elements)
    parent = ParentFrame(frame.atoms)
    cuts: list[TrialCut] = []
    left_out: dict[str, None] = {}
    shapes = [("cluster", buffer, (1.0, 1.0, 1.0)) for buffer in sorted(buffers)]
    shapes += [("box", buffer, fractions) for buffer, fractions in _list_boxes(frame, core_radius)]
    for mode, buffer, fractions in shapes:
        extractor = EmbeddingExtractor(
            mode=mode,  # type: ignore[arg-type]
            cutoff=config.training.basis.cutoff,
            core_radius=core_radius,
            buffer=buffer,
            trained_radius=core_radius,
            vacuum=config.extraction.vacuum,
            allowed=allowed_distances(config.system.elements, config.initial.min_distance),
            box=BoxShape(fractions),
            max_atoms=sys.maxsize,  # the limit asked for is checked below
            neutral=bonding == "ionic",
            whole_molecules=bonding == "molecular",
        )
        for center in centers:
            what = f"{mode} with a buffer of {buffer:.2f} Å"
            try:
                cut = extractor.extract_cluster(parent, center)
            except CutRefused as refused:
                left_out[f"{what}: {refused}"] = None
                continue
            if len(cut.atoms) > max_atoms:
                left_out[f"{what}: some {len(cut.atoms)} atoms, --max-atoms allows {max_atoms}"] = None
                break
            cut.atoms.info["structure_id"] = structure_id(cut.atoms)
            core = np.flatnonzero(cut.force_mask)
            core = core[np.argsort(cut.atoms.arrays["parent_index"][core], kind="stable")]
            cuts.append(TrialCut(mode, buffer, center, cut.atoms, core))
    return cuts, list(left_out)


def _list_boxes(frame: AuditFrame, core_radius: float) -> list[tuple[float, tuple[float, float, float]]]:
    """(buffer, fractions of the frame's cell vectors) of boxes that hold the core, one crystal cell smaller each.

    The box has the same number of cells less along each vector than the frame, as far as there are any.
    """
    if frame.crystal is None or not frame.atoms.pbc.all():
        return []
    repeats = np.array(frame.crystal.supercell)
    boxes = {}
    for fewer in range(1, int(repeats.max())):
        fractions = np.maximum(repeats - fewer, 1) / repeats
        buffer = float(cell_heights(frame.atoms.cell[:] * fractions[:, None]).min() / 2 - core_radius)
        if buffer >= 0:
            boxes[buffer] = (float(fractions[0]), float(fractions[1]), float(fractions[2]))
    return sorted(boxes.items())
