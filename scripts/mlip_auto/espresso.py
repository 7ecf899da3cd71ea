"""Quantum ESPRESSO's pw.x as an oracle: the input that a structure needs, the physics asked for, how pw.x is run."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.espresso import Espresso, EspressoProfile

from mlip_auto.config_dft import Dft
from mlip_auto.namelists import DEFAULT_CONV_THR, NUMERICS, flatten_parameters, nest_parameters
from mlip_auto.neighbours import cell_heights
from mlip_auto.processes import die_with_parent
from mlip_auto.pseudopotentials import Pseudopotential, find_pseudopotential_errors, read_pseudopotential
from mlip_auto.scf_failures import RefusedStructure

OUTPUT = "espresso.pwo"
ERRORS = "espresso.err"
SMALLEST_VACUUM = 5.0  # Å between an isolated structure and its image
ROUNDING = 1e-9  # relative: a spacing that divides the reciprocal vector gives no point too many


class PwProfile(EspressoProfile):
    """pw.x as ASE runs it, but ended by the kernel with the process that started it."""

    def __init__(self, dft: Dft):
        command = (dft.command or "pw.x").replace("{threads}", str(dft.threads))
        super().__init__(command, Path(dft.pseudo_folder or "").resolve())
        # One thread for each MPI process; a pw.x that is not under MPI uses the job's threads itself.
        self.threads = 1 if "{threads}" in (dft.command or "") else dft.threads

    def run(
        self,
        directory: Path,
        inputfile: str | None,
        outputfile: str,
        errorfile: str | None = None,
        append: bool = False,
    ) -> None:
        with open(directory / outputfile, "wb") as out, open(directory / (errorfile or ERRORS), "wb") as err:
            subprocess.run(
                self.get_command(inputfile),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                preexec_fn=partial(die_with_parent, os.getpid()),
                check=True,
            )


def make_espresso(dft: Dft, atoms: Atoms) -> Espresso:
    """The calculator of one structure; it works in the current folder.

    `tprnfor` always, `tstress` where the cell is periodic in 3D, `assume_isolated` where it is meant for. Sets the
    initial magnetic moments of `atoms` as pw.x wants them: a fraction of the valence electrons.

    Raises
    ------
    RefusedStructure
        Too little vacuum, an odd number of electrons with fixed occupations, a charge without its correction.
    ValueError
        A pseudopotential that is missing or wrong.
    """
    elements = sorted(set(atoms.symbols))
    errors = find_espresso_errors(dft, elements)
    if errors:
        raise RefusedStructure("; ".join(errors))
    entries = flatten_parameters(dft.parameters)
    if not _is_isolated(atoms, str(entries.get("assume_isolated", ""))):
        entries.pop("assume_isolated", None)
    _check_vacuum(atoms, entries)
    _check_electrons(count_electrons(dft, atoms), atoms, entries)
    if dft.starting_moments:
        entries["nspin"] = 2
        atoms.set_initial_magnetic_moments(
            [dft.starting_moments.get(atom.symbol, 0.0) / _read(dft, atom.symbol).valence for atom in atoms]
        )
    grid = find_k_grid(atoms, dft.kspacing or np.inf)
    # pw.x's own code for Gamma costs half; it does not exist for non-collinear spins.
    gamma = grid == (1, 1, 1) and not entries.get("noncolin", False)
    control = {"tprnfor": True, "tstress": bool(atoms.pbc.all())}
    return Espresso(
        profile=PwProfile(dft),
        pseudopotentials={element: dft.pseudopotentials[element] for element in elements},
        input_data=nest_parameters({"disk_io": "none", **entries, **control}),
        kpts=None if gamma else grid,
    )


def find_k_grid(atoms: Atoms, kspacing: float) -> tuple[int, int, int]:
    """Gamma-centred grid, ceil(|b_i| / kspacing) points along periodic directions and 1 along vacuum.

    Parameters
    ----------
    kspacing
        1/Å with 2π, as VASP's KSPACING (VASP wiki, KSPACING): |b_i| = 2π / height of the cell along i.
    """
    lengths = 2 * np.pi / cell_heights(atoms.cell.complete()[:])
    points = np.maximum(1, np.ceil(lengths / kspacing * (1 - ROUNDING))).astype(int)
    first, second, third = (int(n) if periodic else 1 for n, periodic in zip(points, atoms.pbc, strict=True))
    return first, second, third


def count_electrons(dft: Dft, atoms: Atoms) -> float:
    """Valence electrons of the pseudopotentials less `tot_charge`."""
    valence = {element: _read(dft, element).valence for element in set(atoms.symbols)}
    charge = flatten_parameters(dft.parameters).get("tot_charge", 0.0)
    return sum(valence[symbol] for symbol in atoms.symbols) - float(charge)


def describe_espresso(dft: Dft) -> dict[str, Any]:
    """The physics asked for: entries that change the result, k spacing, spins, sha256 of each pseudopotential."""
    entries = flatten_parameters(dft.parameters)
    return {
        "code": dft.code,
        "parameters": {key: entries[key] for key in sorted(entries) if key not in NUMERICS},
        "kspacing": dft.kspacing,
        "starting_moments": dft.starting_moments,
        "pseudopotentials": {element: _read(dft, element).sha256 for element in sorted(dft.pseudopotentials)},
    }


def find_espresso_errors(dft: Dft, elements: Iterable[str]) -> list[str]:
    """What `check` can say without running pw.x: pseudopotentials, cutoff, spins, entries by number of species."""
    entries = flatten_parameters(dft.parameters)
    elements = list(elements)
    assert dft.pseudo_folder is not None  # the config's model asks for it
    errors = find_pseudopotential_errors(
        dft.pseudo_folder, dft.pseudopotentials, elements, one_functional="input_dft" not in entries
    )
    if "ecutwfc" not in entries:
        errors.append("dft.parameters.ecutwfc: missing; pw.x needs it (Ry): see the pseudopotentials' recommendation")
    numbered = [key for key in entries if "(" in key]
    if numbered and len(elements) > 1:
        errors.append(
            f"dft.parameters.{numbered[0]}: a number of a species, which differs from structure to structure with "
            f"{len(elements)} elements; remove it"
        )
    if entries.get("nspin", 1) == 2 and not dft.starting_moments and "tot_magnetization" not in entries:
        errors.append("dft.starting_moments: missing; nspin 2 needs them (µB by element), or tot_magnetization")
    if entries.get("occupations") == "smearing" and not entries.get("degauss"):
        errors.append("dft.parameters.degauss: missing; occupations smearing needs a width (Ry), e.g. 0.02")
    return errors


def find_espresso_warnings(dft: Dft) -> list[str]:
    """What may be as it should be and mostly is not."""
    entries = flatten_parameters(dft.parameters)
    warnings = []
    program = shlex.split(dft.command or "pw.x")[0]
    if shutil.which(program) is None:
        warnings.append(f"dft.command: no {program!r} on this machine; it must be where the labelling jobs run")
    if entries.get("tot_charge"):
        warnings.append(
            f"dft.parameters.tot_charge: {entries['tot_charge']:g} in every structure, whatever its size and elements"
        )
    if entries.get("conv_thr", DEFAULT_CONV_THR) > DEFAULT_CONV_THR:
        warnings.append(
            f"dft.parameters.conv_thr: found {entries['conv_thr']:g} Ry, looser than pw.x's own {DEFAULT_CONV_THR:g}; "
            "forces converge slower than the energy: 1.0e-8 is usual"
        )
    return warnings


def _read(dft: Dft, element: str) -> Pseudopotential:
    return read_pseudopotential(Path(dft.pseudo_folder or "") / dft.pseudopotentials[element])


def _is_isolated(atoms: Atoms, method: str) -> bool:
    """Whether a method of `assume_isolated` is meant for a structure: 2D and esm for slabs, the others for clusters."""
    if method.lower() in ("2d", "esm"):
        return atoms.pbc.tolist() == [True, True, False]
    return not atoms.pbc.any()


def _check_vacuum(atoms: Atoms, entries: dict[str, Any]) -> None:
    """Refuse a structure without a cell, or one whose images along vacuum are near."""
    if atoms.cell.rank < 3:
        raise RefusedStructure("no cell of three vectors; pw.x needs one, with vacuum around a cluster")
    fractions = atoms.get_scaled_positions(wrap=False)
    heights = cell_heights(atoms.cell[:])
    for axis in np.flatnonzero(~atoms.pbc):
        extent = float(np.ptp(fractions[:, axis]) * heights[axis])
        gap = heights[axis] - extent
        if gap < SMALLEST_VACUUM:
            raise RefusedStructure(
                f"{gap:.1f} Å of vacuum along cell vector {axis + 1}; at least {SMALLEST_VACUUM:g} Å, or the atoms "
                "see their images: enlarge extraction.vacuum"
            )
        if entries.get("assume_isolated") in ("mt", "m-t", "martyna-tuckerman") and heights[axis] < 2 * extent:
            raise RefusedStructure(
                f"the cell is {heights[axis]:.1f} Å wide along vector {axis + 1} and the atoms {extent:.1f} Å; "
                "assume_isolated mt needs twice as much cell as atoms: enlarge extraction.vacuum"
            )


def _check_electrons(electrons: float, atoms: Atoms, entries: dict[str, Any]) -> None:
    """Refuse electrons that the occupations cannot hold, and a charge in vacuum without a correction."""
    if entries.get("tot_charge") and not atoms.pbc.all() and "assume_isolated" not in entries:
        raise RefusedStructure(
            f"tot_charge {entries['tot_charge']:g} in vacuum; its energy depends on the cell: set assume_isolated"
        )
    pairs = (electrons - float(entries.get("tot_magnetization", 0))) / 2
    if entries.get("occupations", "fixed") == "fixed" and abs(pairs - round(pairs)) > 1e-6:
        raise RefusedStructure(
            f"{electrons:g} electrons cannot be paired under fixed occupations; set occupations: smearing with a "
            "degauss, or nspin 2 with tot_magnetization, or tot_charge"
        )
