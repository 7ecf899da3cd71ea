"""MD of one walker, and the cuts from all walkers of a generation."""

from pathlib import Path
from typing import Any

from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.extraction import extract_from_walker
from mlip_auto.initial_sources import build_source
from mlip_auto.lammps_input import InferenceConfig
from mlip_auto.lammps_output import read_last_frames
from mlip_auto.md import LammpsRunner
from mlip_auto.paths import WalkerPaths
from mlip_auto.structures import read_json, structure_id
from mlip_auto.walkers import find_walker

FRAMES_CUT = 3  # last frames of a halted run that candidates are taken from


def run_walker(
    config: CampaignConfig,
    generation: int,
    name: str,
    potential: Path,
    active_set: Path,
    paths: WalkerPaths,
    scratch: Path,
) -> dict[str, Any]:
    """Run the walker `name` of a generation from its start structure; the outcome, as in `LammpsRunner.run_md`."""
    spec = find_walker(config, name, generation)
    settings = config.exploration
    inference = InferenceConfig(
        temperature=spec.temperature,
        pressure=spec.pressure,
        timestep=settings.timestep,
        steps=spec.steps,
        uncertainty_threshold=settings.uncertainty_threshold,
        gamma_every=settings.gamma_every,
        skin=settings.skin,
        seed=spec.seed,
    )
    atoms = build_source(spec.structure, config.system.elements, config.seed)[0]
    masses = config.system.masses
    atoms.set_masses([masses.get(atom.symbol, atom.mass) for atom in atoms])
    return LammpsRunner().run_md(atoms, potential, active_set, inference, paths, scratch)


def extract_generation(
    config: CampaignConfig, generation: int, walkers: dict[str, WalkerPaths]
) -> tuple[list[Atoms], list[str]]:
    """Cuts from all walkers that halted or crashed, each structure once; and which were refused, and why."""
    cuts: dict[str, Atoms] = {}
    refusals: list[str] = []
    for name, paths in walkers.items():
        outcome = read_json(paths.outcome) | {"walker": name}
        frames = read_last_frames(paths.dump, FRAMES_CUT)
        found, refused = extract_from_walker(frames, outcome, config, generation)
        refusals += refused
        for atoms in found:
            cuts.setdefault(structure_id(atoms), atoms)
    return list(cuts.values()), refusals
