"""The input of one MD run: `in.lammps` and its data file, the same for every LAMMPS engine."""

import hashlib
import io
from bisect import bisect_left
from itertools import accumulate, combinations_with_replacement
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data
from pydantic import Field, model_validator

from mlip_auto.config_conditions import Stage, check_stage
from mlip_auto.config_types import Positive, Section
from mlip_auto.lammps_stages import format_fixes, format_runs, moves_tilts
from mlip_auto.paths import WalkerPaths
from mlip_auto.structures import write_atomically

RESTARTS = ("restart.a", "restart.b")
"""LAMMPS writes them in turn: one is whole whenever it may be killed."""
ABSURD_ENERGY = 10.0  # eV/atom that no sound run moves from its start: more than the cohesive energy of any solid
CANDIDATE_FRAMES = 100  # of a run, at most; two frames closer in time than a hundredth of it differ little
VIEWED_FRAMES = 20
DUMPED_ATOMS = 5_000_000  # in all frames of a run: about 400 MB of text
LATEST_FRAMES = 3  # that lead to the end of a run, whatever their gamma


class InferenceConfig(Section):
    """Conditions of one MD run and what makes it halt.

    A run under one set of conditions may be given flat: `InferenceConfig(temperature=300, steps=1000, seed=1)`.
    """

    stages: tuple[Stage, ...] = Field(min_length=1, description="Conditions that follow each other.")
    timestep: Positive = Field(1.0, description="MD time step in fs.")
    uncertainty_threshold: Positive = Field(5.0, description="Extrapolation grade gamma above which MD halts.")
    gamma_select: Positive = Field(
        2.0,
        description="Frames above this gamma are kept as candidates; a restart file up to it is safe to go on from.",
    )
    gamma_every: int = Field(10, ge=1, description="Steps between two evaluations of gamma.")
    dump_every: int | None = Field(None, ge=1, description="Steps between two frames kept whatever their gamma.")
    restart_every: int = Field(500, ge=1, description="Steps between two restart files, before rounding.")
    min_distances: dict[tuple[str, str], Positive] = Field(
        {}, description="Å by sorted pair of elements; a run with a closer pair has crashed."
    )
    skin: Positive = Field(1.0, description="Skin of the neighbour list in Å.")
    seed: int = Field(ge=1, lt=2**31, description="Seed of the initial velocities.")

    @model_validator(mode="before")
    @classmethod
    def _lift_one_stage(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "stages" in content:
            return content
        stage = {key: value for key, value in content.items() if key in Stage.model_fields}
        return {key: value for key, value in content.items() if key not in stage} | {"stages": (stage,)}

    @model_validator(mode="after")
    def _stages_are_possible(self) -> "InferenceConfig":
        for number, stage in enumerate(self.stages):
            check_stage(stage, self.gamma_every, self.timestep, f"stages[{number}]." if len(self.stages) > 1 else "")
        return self

    @property
    def steps(self) -> int:
        """MD steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def absurd_temperature(self) -> float:
        """K; far above what a run reaches unless it has blown up."""
        return 10 * max(max(stage.temperature) for stage in self.stages) + 1000

    def find_stage(self, step: int) -> tuple[int, int]:
        """Index of the stage to which a step belongs, and steps since its start; a boundary belongs to the earlier."""
        ends = list(accumulate(stage.steps for stage in self.stages))
        index = min(bisect_left(ends, step), len(ends) - 1)
        return index, step - (ends[index] - self.stages[index].steps)

    def dump_intervals(self, n_atoms: int) -> tuple[int, int]:
        """Steps between two candidates and between two frames for viewing, whole multiples of `gamma_every`.

        The files of a long run of a large cell stay small: frames get rarer with both.
        """
        most = max(DUMPED_ATOMS // n_atoms, 1)
        candidates, viewed = (
            self.gamma_every * ceil(self.steps / min(frames, most) / self.gamma_every)
            for frames in (CANDIDATE_FRAMES, VIEWED_FRAMES)
        )
        return candidates, self.dump_every or viewed

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
        Fewer than two atoms, a periodic direction without a cell vector, a barostat on a structure that is not
        periodic along all three, or a deformation along an open direction.
    """
    if len(atoms) < 2:
        raise ValueError(f"MD of {len(atoms)} atom: at least 2 are needed for a temperature")
    periodic = atoms.cell[atoms.pbc]
    if len(periodic) and np.linalg.matrix_rank(periodic) < len(periodic):
        raise ValueError(
            f"cell: found {atoms.cell[:].tolist()} for a structure with pbc {atoms.pbc.tolist()}; "
            "each periodic direction needs a cell vector of its own, set the cell or switch pbc off"
        )
    for stage in inference.stages:
        refuse_open_directions(atoms, stage)
    elements = sorted(set(atoms.symbols))
    with write_atomically(run.start) as aside:
        aside.write_text(_format_data(atoms, elements))
    with write_atomically(run.input) as aside:
        aside.write_text(_format_input(run, atoms, elements, potential, active_set, inference))


def refuse_open_directions(atoms: Atoms, stage: Stage) -> None:
    """Raise ValueError (key, found, cure) for a barostat or a deformation along a direction that is not periodic."""
    if stage.pressure is not None and not atoms.pbc.all():
        raise ValueError(
            f"pressure: found {stage.pressure:g} bar for a structure with pbc {atoms.pbc.tolist()}; "
            "a barostat needs a cell that is periodic along all three vectors, leave pressure out"
        )
    for component in stage.deform.components if stage.deform else ():
        if not atoms.pbc[["xyz".index(axis) for axis in component]].all():
            raise ValueError(
                f"deform: found {component} for a structure with pbc {atoms.pbc.tolist()}; "
                "a cell is deformed along its periodic vectors only, leave that component out"
            )


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
    every, timestep = inference.gamma_every, inference.timestep / 1000  # ps
    candidates, viewed = inference.dump_intervals(len(atoms))
    # The angular momentum of a periodic system means nothing.
    rotation = "no" if atoms.pbc.any() else "yes"
    triclinic = '"change_box all triclinic" ' if any(map(moves_tilts, inference.stages)) else ""
    temperature = f"{inference.stages[0].temperature[0]:.10g}"
    absurd = f"{inference.absurd_temperature:.0f}"
    threshold = f"{inference.uncertainty_threshold:.10g}"
    candidate = f"v_gamma_max > {inference.gamma_select:.10g} && step % {candidates} == 0"
    columns = f"sort id element {' '.join(elements)} format float %.10g"
    return f"""\
units           metal
atom_style      atomic
boundary        {" ".join("p" if periodic else "m" for periodic in atoms.pbc)}
if              "$(is_defined(variable,resume)) == 0" then &
                "read_data {run.start.name}" {triclinic}&
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
{format_fixes(inference.stages, timestep)}

compute         gamma_max all reduce max f_gamma
variable        gamma_max equal c_gamma_max
thermo          {every}
thermo_style    custom step time temp pe etotal press vol v_gamma_max
thermo_modify   format float %.10g flush yes
restart         {inference.restart_steps} {" ".join(RESTARTS)}

# Kept: what halts the run, candidates now and then, a frame for viewing more seldom; and the last frames in files of
# their own, each taking the place of an older one: they tell what led to a crash.
variable        dull equal "!(v_gamma_max > {threshold} || ({candidate}) || step % {viewed} == 0)"
dump            traj all custom {every} {run.dump.name} id type element x y z f_gamma
dump_modify     traj {columns} append yes skip v_dull
dump            latest all custom {every} {run.latest.name} id type element x y z f_gamma
dump_modify     latest {columns} maxfiles {LATEST_FRAMES}

# After a soft halt LAMMPS ignores each `run` that follows.
fix             stop all halt {every} v_gamma_max > {threshold} error soft message yes
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

{format_runs(inference.stages, timestep)}"""


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
