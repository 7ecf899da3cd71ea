"""The input of one MD run: `in.lammps` and its data file, the same for every LAMMPS engine."""

import hashlib
import io
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data
from pydantic import Field, model_validator

from mlip_auto.config_types import Positive, Section
from mlip_auto.paths import WalkerPaths
from mlip_auto.structures import write_atomically

RESTARTS = ("restart.a", "restart.b")
"""LAMMPS writes them in turn: one is whole whenever it may be killed."""
ABSURD_ENERGY = 10.0  # eV/atom that no sound run moves from its start: more than the cohesive energy of any solid


class InferenceConfig(Section):
    """Conditions of one MD run and what makes it halt."""

    temperature: Positive = Field(description="Target temperature in K.")
    pressure: float | None = Field(None, description="Target pressure in bar (isotropic NPT); none: fixed cell (NVT).")
    timestep: Positive = Field(1.0, description="MD time step in fs.")
    steps: int = Field(ge=1, description="MD steps; a multiple of gamma_every.")
    uncertainty_threshold: Positive = Field(5.0, description="Extrapolation grade gamma above which MD halts.")
    gamma_select: Positive = Field(2.0, description="Gamma up to which a restart file is safe to go on from.")
    gamma_every: int = Field(10, ge=1, description="Steps between two evaluations of gamma.")
    restart_every: int = Field(500, ge=1, description="Steps between two restart files, before rounding.")
    min_distances: dict[tuple[str, str], Positive] = Field(
        {}, description="Å by sorted pair of elements; a run with a closer pair has crashed."
    )
    skin: Positive = Field(1.0, description="Skin of the neighbour list in Å.")
    seed: int = Field(ge=1, lt=2**31, description="Seed of the initial velocities.")

    @model_validator(mode="after")
    def _last_step_has_gamma(self) -> "InferenceConfig":
        if self.steps % self.gamma_every:
            raise ValueError(
                f"steps: {self.steps} is not a multiple of gamma_every, {self.gamma_every}; "
                "the last step of a run needs its gamma, choose a multiple"
            )
        return self

    @property
    def absurd_temperature(self) -> float:
        """K; far above what a run at `temperature` reaches unless it has blown up."""
        return 10 * self.temperature + 1000

    @property
    def restart_steps(self) -> int:
        """`restart_every` rounded up to a multiple of `gamma_every`, so that gamma at a restart file is known."""
        return -(-self.restart_every // self.gamma_every) * self.gamma_every


def write_input(run: WalkerPaths, atoms: Atoms, potential: Path, active_set: Path, inference: InferenceConfig) -> None:
    """Write `in.lammps` and the data file that it reads, into the folder of `run`.

    The force is asked for as `pair_style pace/extrapolation`, which a LAMMPS with ML-PACE has built in and
    `lammps_library` provides otherwise: both run this very file. A cell that is not in LAMMPS's orientation is
    rotated into it (first vector along x, second in the xy plane), a strongly skewed one replaced by a less skewed
    cell of the same lattice. Masses are those of `atoms`.

    With `-var resume FILE` the same script goes on from a restart file. It holds all that the run depends on (the
    content of the potential as hashes): a restart file belongs to a run if script and data file are the same.

    Raises
    ------
    ValueError
        Fewer than two atoms, a periodic direction without a cell vector, or a barostat on a structure that is not
        periodic along all three.
    """
    if len(atoms) < 2:
        raise ValueError(f"MD of {len(atoms)} atom: at least 2 are needed for a temperature")
    periodic = atoms.cell[atoms.pbc]
    if len(periodic) and np.linalg.matrix_rank(periodic) < len(periodic):
        raise ValueError(
            f"cell: found {atoms.cell[:].tolist()} for a structure with pbc {atoms.pbc.tolist()}; "
            "each periodic direction needs a cell vector of its own, set the cell or switch pbc off"
        )
    if inference.pressure is not None and not atoms.pbc.all():
        raise ValueError(
            f"pressure: found {inference.pressure:g} bar for a structure with pbc {atoms.pbc.tolist()}; "
            "a barostat needs a cell that is periodic along all three vectors, leave pressure out"
        )
    elements = sorted(set(atoms.symbols))
    with write_atomically(run.start) as aside:
        aside.write_text(_format_data(atoms, elements))
    with write_atomically(run.input) as aside:
        aside.write_text(_format_input(run, atoms, elements, potential, active_set, inference))


def _format_data(atoms: Atoms, elements: list[str]) -> str:
    # Along an open direction the box follows the atoms out but stays this wide (boundary m): straight, so that LAMMPS
    # can stretch it, and never flat, which its neighbour bins do not bear.
    cell = atoms.cell.copy()
    cell[~atoms.pbc] = 0
    boxed = Atoms(
        atoms.symbols,
        positions=atoms.positions,
        cell=cell.complete(),
        pbc=atoms.pbc,
        masses=atoms.get_masses(),
    )
    boxed.center(vacuum=5.0, axis=np.flatnonzero(~atoms.pbc).tolist())
    boxed.wrap(pbc=atoms.pbc)
    text = io.StringIO()
    write_lammps_data(
        text, boxed, specorder=elements, masses=True, reduce_cell=True, atom_style="atomic", units="metal"
    )
    return text.getvalue()


def _format_input(
    run: WalkerPaths, atoms: Atoms, elements: list[str], potential: Path, active_set: Path, inference: InferenceConfig
) -> str:
    timestep = inference.timestep / 1000  # ps
    every = inference.gamma_every
    temperature = f"{inference.temperature:.10g}"
    thermostat = f"temp {temperature} {temperature} {100 * timestep:.10g}"
    if inference.pressure is None:
        ensemble = f"nvt {thermostat}"
    else:
        pressure = f"{inference.pressure:.10g}"
        ensemble = f"npt {thermostat} iso {pressure} {pressure} {1000 * timestep:.10g}"
    # The angular momentum of a periodic system means nothing.
    rotation = "no" if atoms.pbc.any() else "yes"
    absurd = f"{inference.absurd_temperature:.0f}"
    threshold = f"{inference.uncertainty_threshold:.10g}"
    return f"""\
units           metal
atom_style      atomic
boundary        {" ".join("p" if periodic else "m" for periodic in atoms.pbc)}
if              "$(is_defined(variable,resume)) == 0" then &
                "read_data {run.start.name}" &
                "velocity all create {temperature} {inference.seed} mom yes rot {rotation} dist gaussian" &
                else "read_restart ${{resume}}"

# sha256 of the potential {_hash(potential)}
# and of its active set   {_hash(active_set)}
pair_style      pace/extrapolation
pair_coeff      * * "{potential.absolute()}" "{active_set.absolute()}" {" ".join(elements)}
fix             gamma all pair {every} pace/extrapolation gamma 1

neighbor        {inference.skin:.10g} bin
neigh_modify    every 1 delay 0 check yes
timestep        {timestep:.10g}
fix             md all {ensemble}

compute         gamma_max all reduce max f_gamma
variable        gamma_max equal c_gamma_max
thermo          {every}
thermo_style    custom step time temp pe etotal press vol v_gamma_max
thermo_modify   format float %.10g flush yes
dump            traj all custom {every} {run.dump.name} id type element x y z f_gamma
dump_modify     traj sort id element {" ".join(elements)} format float %.10g append yes
restart         {inference.restart_steps} {" ".join(RESTARTS)}

fix             stop all halt {every} v_gamma_max > {threshold} error continue message yes
# A comparison with NaN is false: this ends a run that has blown up, whatever it became.
variable        temperature_is_sane equal "temp < {absurd}"
fix             temperature_above_{absurd}_K all halt {every} v_temperature_is_sane != 1 error hard
{_format_distances(elements, inference)}
# fix halt does not look at the first frame: a start that is unknown already must not move.
run             0 post no
if              "${{gamma_max}} > {threshold}" then &
                "print 'Halt condition met on step $(step) with value ${{gamma_max}}'" "quit 0"
variable        energy_is_sane equal abs(pe-($(pe)))<{ABSURD_ENERGY:g}*atoms
fix             energy_moved_{ABSURD_ENERGY:g}_eV_per_atom all halt {every} v_energy_is_sane != 1 error hard
run             {inference.steps} upto
"""


def _format_distances(elements: list[str], inference: InferenceConfig) -> str:
    """Lines that end a run with `error hard` as crashed when two atoms are closer than `min_distances`.

    Counted inside LAMMPS, where both engines can: `compute coord/atom` takes its neighbours from the list of the
    pair style, at gamma steps only, so it costs next to nothing. The dump alone would show it after the run, too late
    to stop one that goes on with atoms inside each other.
    """
    lines, counts = [], []
    for pair in combinations_with_replacement(elements, 2):
        distance = inference.min_distances.get(pair)
        if distance is not None:
            name = "_".join(pair)
            first, second = (elements.index(element) + 1 for element in pair)
            lines += [
                f"group           {pair[0]} type {first}",
                f"compute         close_{name} {pair[0]} coord/atom cutoff {distance:.10g} {second}",
                f"compute         n_close_{name} {pair[0]} reduce sum c_close_{name}",
            ]
            counts.append(f"c_n_close_{name}")
    if not counts:
        return ""
    lines += [
        f"variable        too_close equal {'+'.join(counts)}",
        f"fix             atoms_below_minimum_distance all halt {inference.gamma_every} v_too_close > 0 error hard",
    ]
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
