"""What the config's models cannot see: files, cell sizes, counts of environments. Nothing is run."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_auto.check_cutting import describe_cell, find_deformation_error, find_number_errors, judge_cuts
from mlip_auto.check_oracle import find_oracle_errors
from mlip_auto.check_structures import BuiltSource, CheckResult, build_checked, check_initial
from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import InitialStructures
from mlip_auto.extractor import EmbeddingExtractor
from mlip_auto.lammps_executable import CURE, find_command_fault
from mlip_auto.lammps_input import refuse_open_directions
from mlip_auto.oracles import GAMMA_ONLY_CODES
from mlip_auto.walkers import base_walkers

SAME_CELL = 0.05  # relative: strains of a few per cent are no other cell size


def check_campaign(config: CampaignConfig, directory: Path = Path()) -> CheckResult:
    """Check a valid config against the rest of the world, all errors at once.

    Parameters
    ----------
    directory
        Working folder of the campaign, where relative structure files start.
    """
    result = CheckResult()
    families = [
        build_checked(f"initial.structures[{number}]", family, config, directory, result)
        for number, family in enumerate(config.initial.structures)
    ]
    walkers = [
        build_checked(f"exploration.walkers[{number}].structure", walker.structure, config, directory, result)
        for number, walker in enumerate(config.exploration.walkers)
    ]
    check_initial(config, families, result)
    _check_oracle(config, families, directory, result)
    _check_solver(config, result)
    _check_walkers(config, walkers, result)
    _check_cutting(config, walkers, result)
    if config.lammps.engine == "executable" and (fault := find_command_fault(config.lammps)):
        result.errors.append(f"lammps.command: {fault}; {CURE}")
    if config.dft.code in GAMMA_ONLY_CODES:
        _check_one_cell_size(config, families, walkers, result)
    return result


def _check_oracle(
    config: CampaignConfig, families: Sequence[BuiltSource], directory: Path, result: CheckResult
) -> None:
    start = next((atoms for family in families for atoms in family.structures), None)
    result.errors.extend(find_oracle_errors(config, directory, start))
    if config.dft.code == "espresso":
        from mlip_auto.espresso import find_espresso_warnings

        result.warnings.extend(find_espresso_warnings(config.dft.in_folder(directory)))


def _check_solver(config: CampaignConfig, result: CheckResult) -> None:
    training, basis = config.training, config.training.basis
    if training.solver != "linear":
        return
    cure = "set training.solver: pacemaker"
    if basis.ndensity != 1:
        result.errors.append(
            f"training.basis.ndensity: found {basis.ndensity}; the linear solver fits 1 only: set it, or {cure}"
        )
    elif basis.fs_parameters != [1.0, 1.0] or not basis.npot.startswith("FinnisSinclair"):
        result.errors.append(
            f"training.basis.fs_parameters: found {basis.fs_parameters} with npot {basis.npot}; the linear solver "
            f"fits a linear embedding only, [1, 1] with FinnisSinclairShiftedScaled: set it, or {cure}"
        )


def _check_walkers(config: CampaignConfig, walkers: Sequence[BuiltSource], result: CheckResult) -> None:
    runs = Counter(spec.name for spec in base_walkers(config))
    result.errors.extend(
        f"exploration.walkers: {number} MD runs are named {name}; give each walker its own `name` and name each "
        "temperature once"
        for name, number in runs.items()
        if number > 1
    )
    for walker in walkers:
        if len(walker.structures) > 1:
            result.errors.append(
                f"{walker.key}.index: {walker.source.index!r} picks {len(walker.structures)} structures of "
                f"{walker.source.file}; a walker starts from one: give its number"
            )
    _check_open_directions(config, walkers, result)
    exploration = config.exploration
    if exploration.resume == "restart" and config.loop.confirmations == 0:
        result.errors.append(
            "loop.confirmations: found 0 with exploration.resume restart; no run from the start would confirm the "
            "potential: give at least 1"
        )
    if exploration.gamma_select > exploration.uncertainty_threshold:
        result.warnings.append(
            f"exploration.gamma_select: found {exploration.gamma_select:g}, above uncertainty_threshold "
            f"({exploration.uncertainty_threshold:g}); only the halting atom of a walker is sure to be cut: lower it"
        )


def _check_open_directions(config: CampaignConfig, walkers: Sequence[BuiltSource], result: CheckResult) -> None:
    for number, (walker, built) in enumerate(zip(config.exploration.walkers, walkers, strict=True)):
        stages = [stage for _, run in walker.list_runs(config.exploration.steps) for stage in run]
        try:
            for start, stage in product(built.structures[:1], stages):
                refuse_open_directions(start, stage)
        except ValueError as error:
            result.errors.append(f"exploration.walkers[{number}].{error}")


def _check_cutting(config: CampaignConfig, walkers: Sequence[BuiltSource], result: CheckResult) -> None:
    errors = find_number_errors(config)
    for number, (walker, built) in enumerate(zip(config.exploration.walkers, walkers, strict=True)):
        for start in built.structures[:1]:
            if not errors:
                found, doubtful = judge_cuts(config, built.source, start)
                result.errors.extend(f"{built.key}: {error}" for error in found)
                result.warnings.extend(f"{built.key}: {warning}" for warning in doubtful)
                if not found and (error := find_deformation_error(config, walker, start)):
                    result.errors.append(f"exploration.walkers[{number}].{error}")
    result.errors.extend(errors)


def _check_one_cell_size(
    config: CampaignConfig, families: Sequence[BuiltSource], walkers: Sequence[BuiltSource], result: CheckResult
) -> None:
    """A Gamma-point code labels one cell size only: initial cells and what the extraction will cut."""
    result.errors.extend(
        f"{family.key}.random_crystal: {config.dft.code} computes at the Gamma point only, and the cells of random "
        "crystals all differ: remove it, or take a code with k-points"
        for family in families
        if isinstance(family.source, InitialStructures) and family.source.random_crystal
    )
    cells = [(family.key, atoms) for family in families for atoms in family.structures]
    for walker in walkers:
        for start in walker.structures[:1]:
            extractor = EmbeddingExtractor.from_config(config, walker.source, start)
            cells.append((f"{extractor.mode} cut from {walker.key}", extractor.outline(start)))
    distinct: list[tuple[str, Atoms]] = []
    for key, atoms in cells:
        if not any(_same_cell(atoms, other) for _, other in distinct):
            distinct.append((key, atoms))
    if len(distinct) > 1:
        found = ", ".join(f"{describe_cell(atoms)} ({key})" for key, atoms in distinct)
        result.errors.append(
            f"dft.code: {config.dft.code} computes at the Gamma point only, where energies of different cell sizes "
            f"are not one data set; found {found}; allowed: one size for all: change `supercell` or extraction "
            "(mode cell, or a box of the same side), or take a code with k-points"
        )


def _same_cell(atoms: Atoms, other: Atoms) -> bool:
    if not (atoms.pbc.any() or other.pbc.any()):
        return True
    return bool(
        np.array_equal(atoms.pbc, other.pbc) and np.allclose(atoms.cell.cellpar(), other.cell.cellpar(), rtol=SAME_CELL)
    )
