"""Cuts for the labels of the next generation: chosen, cut, healed and audited from the frames of halted walkers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from mlip_auto.centres import CANDIDATES_PER_CUT, Candidate, CentreChooser, list_candidates
from mlip_auto.config import CampaignConfig
from mlip_auto.cut_audit import Audit, audit_cut, evaluate_frame
from mlip_auto.cutting import CutRefused, ExtractedStructure, ParentFrame
from mlip_auto.extractor import EmbeddingExtractor
from mlip_auto.fitted_potential import FittedPotential
from mlip_auto.healing import heal
from mlip_auto.structures import structure_id
from mlip_auto.walkers import find_walker


@dataclass(frozen=True)
class WalkerFrames:
    """What one walker of a generation left to cut from: outcome.json's content, and frames in the order of time.

    The frames have the array `gamma` and the info `step`; that which ended the run is the last.
    """

    name: str
    outcome: Mapping[str, Any]
    frames: Sequence[Atoms]


def extract_cuts(
    walkers: Sequence[WalkerFrames], potential: FittedPotential, config: CampaignConfig, generation: int
) -> tuple[list[Atoms], list[str]]:
    """Cuts of a generation, at most `extraction.max_clusters` a walker; only halted or crashed runs are cut.

    Returns
    -------
    cuts : list of Atoms
        With the provenance of `structures` and the audit, each structure once, in the order of choice.
    refusals : list of str
        Which cuts were not made, and why.
    """
    settings = config.extraction
    refusals: list[str] = []
    extractors: dict[str, EmbeddingExtractor] = {}
    temperatures: dict[str, float] = {}
    candidates: list[Candidate] = []
    for walker in walkers:
        frames = [frame for frame in walker.frames if is_sound(frame)]
        if len(frames) < len(walker.frames):
            refusals.append(f"{walker.name}: a frame without finite positions and gamma is not cut")
        if walker.outcome["outcome"] not in ("halted", "crashed") or not frames:
            continue
        source = find_walker(config, walker.name, generation).structure
        extractor = EmbeddingExtractor.from_config(config, source, frames[-1])
        extractors[walker.name] = extractor
        temperatures[walker.name] = walker.outcome["temperature"]
        candidates += list_candidates(
            walker.name,
            [ParentFrame(frame) for frame in frames],
            config.exploration.gamma_select,
            extractor.cutoff,
            limit=CANDIDATES_PER_CUT * settings.max_clusters,
            one_per_frame=extractor.mode == "cell",
        )
    chooser = CentreChooser(
        candidates,
        potential,
        config.exploration.gamma_select,
        settings.max_clusters,
        settings.min_descriptor_distance,
    )
    cuts: dict[str, Atoms] = {}
    while (candidate := chooser.best()) is not None:
        where = (
            f"generation {generation}, {candidate.walker}, step {candidate.step}, atom {candidate.atom}, "
            f"gamma {candidate.gamma:.2f}"
        )
        try:
            cut, audit = make_cut(
                extractors[candidate.walker], potential, candidate, config, temperatures[candidate.walker]
            )
        except CutRefused as refused:
            refusals.append(f"{where}: {refused}")
            chooser.drop(candidate)
            continue
        chooser.accept(candidate)
        audit.write(cut.atoms)
        identifier = structure_id(cut.atoms)
        cut.atoms.info.update(
            structure_id=identifier,
            config_type="active_learning",
            generation=generation,
            walker=candidate.walker,
            step=candidate.step,
            origin=f"{cut.atoms.info['cut_mode']} from {where}",
            center_atom_index=cut.center_atom_index,
            parent_center=candidate.atom,
            gamma=candidate.gamma,
        )
        cuts.setdefault(identifier, cut.atoms)
    return list(cuts.values()), refusals


def is_sound(frame: Atoms) -> bool:
    """A frame of MD that blew up may hold positions or gamma that are no numbers."""
    return bool(np.isfinite(frame.positions).all() and np.isfinite(frame.arrays["gamma"]).all())


def make_cut(
    extractor: EmbeddingExtractor,
    potential: FittedPotential,
    candidate: Candidate,
    config: CampaignConfig,
    temperature: float,
) -> tuple[ExtractedStructure, Audit]:
    """Cut, heal and audit; a cut that fails its audit when healed is enlarged, and refused where it cannot grow.

    `temperature`: that of the walker, K.

    Raises
    ------
    CutRefused
        With what was wrong with the cut of each size.
    """
    reference = evaluate_frame(candidate.frame, candidate.atom, extractor.core_radius, potential)
    inspect = partial(
        audit_cut,
        reference=reference,
        potential=potential,
        allowed=extractor.allowed,
        threshold=config.exploration.uncertainty_threshold,
        max_force_change=config.extraction.max_force_change,
    )
    problems: list[str] = []
    size: EmbeddingExtractor | None = extractor
    while size is not None:
        try:
            cut = size.extract_cluster(candidate.frame, candidate.atom)
        except CutRefused as refused:
            problems.append(str(refused))
            break
        cut, audit = heal(
            cut,
            potential,
            size.frozen_radius,
            audit=inspect,
            temperature=temperature,
            timestep=config.exploration.timestep,
            seed=(config.seed, candidate.step, candidate.atom),
        )
        if not audit.problems:
            return cut, audit
        problems.append(f"{size.mode} of {len(cut.atoms)} atoms: {'; '.join(audit.problems)}")
        size = size.enlarge()
    raise CutRefused("; ".join(problems))
