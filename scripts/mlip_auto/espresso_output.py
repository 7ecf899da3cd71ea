"""What pw.x says about a calculation beside its energy and forces, and whether that is what was asked for."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.units import Bohr, Ry

from mlip_auto.config_dft import Dft
from mlip_auto.espresso import ERRORS, OUTPUT, count_electrons
from mlip_auto.scf_failures import Failure, Reason, RunReport, recognise

VOLUME_TOLERANCE = 1e-4  # relative; pw.x prints four decimals of bohr³
ELECTRON_TOLERANCE = 0.01  # pw.x prints two decimals
FULL_DISK = 100_000  # bytes left: pw.x does not notice that it writes in vain, so the disk is asked


@dataclass(frozen=True)
class PwOutput:
    """Printed by pw.x; None where it did not come so far.

    `programs` counts the headers: more than one when copies ran side by side. Volume in Å³, force sums in eV/Å.
    """

    version: str
    programs: int
    error: str | None
    converged: bool
    gave_up: bool
    finished: bool
    scf_steps: int
    n_atoms: int | None
    volume: float | None
    electrons: float | None
    total_force: float | None
    scf_correction: float | None


def read_pw_output(text: str) -> PwOutput:
    """Parse the standard output of one pw.x run."""

    def number(pattern: str) -> float | None:
        found = re.findall(pattern, text)
        return float(found[-1]) if found else None

    force, correction = number(r"Total force =\s*(\S+)"), number(r"Total SCF correction =\s*(\S+)")
    volume, atoms = number(r"unit-cell volume\s*=\s*(\S+)"), number(r"number of atoms/cell\s*=\s*(\d+)")
    versions = re.findall(r"Program PWSCF v\.?(\S+) starts", text)
    error = re.search(r"Error in routine +(.+?):\s*\n\s*(.+?)\s*\n", text)
    return PwOutput(
        version=f"pw.x {versions[0]}" if versions else "pw.x",
        programs=len(versions),
        error=None if error is None else f"{error[1]}: {' '.join(error[2].split())}",
        converged="convergence has been achieved" in text,
        gave_up="convergence NOT achieved" in text,
        finished="JOB DONE." in text,
        scf_steps=len(re.findall(r"^ *iteration #", text, re.MULTILINE)),
        n_atoms=None if atoms is None else int(atoms),
        volume=None if volume is None else volume * Bohr**3,
        electrons=number(r"number of electrons\s*=\s*(\d+\.\d*)"),
        total_force=None if force is None else force * Ry / Bohr,
        scf_correction=None if correction is None else correction * Ry / Bohr,
    )


def inspect_pw_run(atoms: Atoms, dft: Dft, folder: Path) -> RunReport:
    """What the files of one run in `folder` say: version, SCF steps, and why it gave no label (None: it gave one)."""
    text, errors = (_read(folder / name) for name in (OUTPUT, ERRORS))
    output = read_pw_output(text)
    fault = find_pw_fault(output, atoms, dft)
    if fault is not None and fault.reason in (Reason.TRUNCATED, Reason.OTHER):
        recognised = recognise(text + errors)
        if recognised is not Reason.OTHER:
            fault = Failure(recognised, output.error or _last_line(errors) or fault.message)
        elif (free := shutil.disk_usage(folder).free) < FULL_DISK:
            fault = Failure(Reason.OUT_OF_DISK, f"{fault.message}, with {free} bytes left on the disk of {folder}")
    return RunReport(output.version, output.scf_steps, fault)


def _read(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def find_pw_fault(output: PwOutput, atoms: Atoms, dft: Dft) -> Failure | None:
    """Why the result cannot be trusted, or was computed for something else than `atoms`."""
    if output.programs > 1:
        return Failure(
            Reason.REFUSED,
            f"pw.x started {output.programs} times in one output: copies side by side instead of MPI processes. The "
            "launcher in dft.command belongs to another MPI than pw.x; for Debian's pw.x take mpirun.openmpi",
        )
    if output.error is not None:
        return Failure(Reason.OTHER, output.error)
    if output.gave_up:
        return Failure(Reason.NOT_CONVERGED, f"SCF not converged after {output.scf_steps} steps")
    if not output.finished or output.scf_correction is None or output.total_force is None:
        return Failure(Reason.TRUNCATED, "the output of pw.x ends before its end")
    if not output.converged:
        return Failure(Reason.NOT_CONVERGED, "pw.x does not say that convergence has been achieved")
    if output.n_atoms != len(atoms):
        return Failure(Reason.REFUSED, f"pw.x computed {output.n_atoms} atoms, {len(atoms)} were asked for")
    volume = atoms.get_volume()
    if output.volume is None or abs(output.volume - volume) > VOLUME_TOLERANCE * volume:
        return Failure(Reason.REFUSED, f"pw.x computed a cell of {output.volume} Å³, {volume:.4f} were asked for")
    electrons = count_electrons(dft, atoms)
    if output.electrons is None or abs(output.electrons - electrons) > ELECTRON_TOLERANCE:
        return Failure(
            Reason.REFUSED,
            f"pw.x computed {output.electrons} electrons; valences less tot_charge make {electrons:g}",
        )
    return _find_loose_forces(output.total_force, output.scf_correction, dft)


def _find_loose_forces(total_force: float, correction: float, dft: Dft) -> Failure | None:
    """A `Total SCF correction` above its limits: the forces are not as converged as the energy."""
    limit = dft.max_scf_correction
    if correction > limit:
        said = f"above dft.max_scf_correction ({limit:g} eV/Å)"
    elif correction > max(dft.max_scf_correction_ratio * total_force, limit / 10):
        said = f"above dft.max_scf_correction_ratio ({dft.max_scf_correction_ratio:g}) of the total force"
    else:
        return None
    return Failure(
        Reason.FORCES,
        f"SCF correction of the forces {correction:.4f} eV/Å at a total force of {total_force:.3f}: {said}",
    )
