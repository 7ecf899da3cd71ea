"""MD of one walker, and the cuts from all walkers of a generation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.distances import allowed_distances
from mlip_auto.extraction import WalkerFrames, extract_cuts
from mlip_auto.fitted_potential import FittedPotential
from mlip_auto.lammps_executable import make_runner
from mlip_auto.lammps_input import InferenceConfig
from mlip_auto.lammps_output import read_candidate_frames
from mlip_auto.paths import WalkerPaths
from mlip_auto.starts import build_start
from mlip_auto.structures import read_json
from mlip_auto.walkers import find_walker, is_confirmation

FRAMES_CUT = 10  # of a halted run that candidates are taken from


def run_walker(
    config: CampaignConfig,
    generation: int,
    name: str,
    potential: Path,
    active_set: Path,
    labels: Sequence[Path],
    paths: WalkerPaths,
    scratch: Path,
    previous: Path | None = None,
    job_minutes: float | None = None,
) -> dict[str, Any]:
    """Run the walker `name` of a generation; the outcome, as in `LammpsRunner.run_md`.

    Parameters
    ----------
    labels
        Files of all generations' labels so far, for a walker that starts from one.
    previous
        Safe restart file of this walker in the generation before, which need not exist: where MD begins under
        `exploration.resume: restart`.
    job_minutes
        Run time that the scheduler grants the job: MD ends a tenth before it, with its restart file.

    Raises
    ------
    LammpsFailed
        As `LammpsRunner.run_md`; `lammps.engine` asks for an executable that does not pass its test.
    """
    spec = find_walker(config, name, generation)
    settings = config.exploration
    inference = InferenceConfig(
        stages=spec.stages,
        timestep=settings.timestep,
        uncertainty_threshold=settings.uncertainty_threshold,
        gamma_select=settings.gamma_select,
        gamma_every=settings.gamma_every,
        dump_every=settings.dump_every,
        restart_every=config.lammps.restart_every,
        min_distances=allowed_distances(config.system.elements, config.initial.min_distance),
        skin=settings.skin,
        seed=spec.seed,
    )
    atoms = build_start(config, spec, labels)
    masses = config.system.masses
    atoms.set_masses([masses.get(atom.symbol, atom.mass) for atom in atoms])
    limits = [settings.max_minutes, None if job_minutes is None else 0.9 * job_minutes]
    runner = make_runner(
        config.lammps,
        config.system.elements,
        config.training.basis.cutoff,
        potential,
        active_set,
        scratch.parent,
        max_minutes=min((limit for limit in limits if limit is not None), default=None),
    )
    # A confirmation is a run of its own, from the start; a walker from the data set starts from another label.
    may_resume = settings.resume == "restart" and not is_confirmation(name) and not spec.structure.data_set
    resumes = may_resume and previous is not None and previous.exists()
    return runner.run_md(
        atoms, potential, active_set, inference, paths, scratch, resume_from=previous if resumes else None
    )


def extract_generation(
    config: CampaignConfig, generation: int, walkers: dict[str, WalkerPaths], potential: Path, active_set: Path
) -> tuple[list[Atoms], list[str]]:
    """Cuts from all walkers that halted or crashed, each structure once; and which were refused, and why."""
    gamma_select = config.exploration.gamma_select
    ended = [
        WalkerFrames(name, read_json(paths.outcome), read_candidate_frames(paths, gamma_select, FRAMES_CUT))
        for name, paths in walkers.items()
    ]
    return extract_cuts(ended, FittedPotential(potential, active_set), config, generation)
