"""The lines of in.lammps for the stages of a run: thermostat, barostat, deformation, and the `run` of each."""

from collections.abc import Sequence
from itertools import accumulate

from mlip_auto.config_conditions import Deformation, Stage


def format_fixes(stages: Sequence[Stage], timestep: float) -> str:
    """Lines before the first `run`, with the fixes of the stage that comes first; `timestep` in ps.

    Which one that is depends on where a restart file lets the run go on, and LAMMPS gives a fix its state back (a
    strain needs its start) only if it is defined by then.
    """
    fixes = [_list_fixes(stage, number, timestep) for number, stage in enumerate(stages, 1)]
    if len(fixes) == 1:
        return "\n".join(map(_align, fixes[0]))
    ends = accumulate(stage.steps for stage in stages)
    branches = [
        f'{"elif" if number else "if  "}            "$(step) < {end}" {"" if number else "then "}{_quote(commands)}'
        for number, (end, commands) in enumerate(zip(ends, fixes[:-1], strict=False))
    ]
    return " &\n".join([*branches, f"else            {_quote(fixes[-1])}"])


def format_runs(stages: Sequence[Stage], timestep: float) -> str:
    """The lines that run the stages one after the other, without those that a restart file has behind it.

    `start` and `stop` tell ramps and strains where in them a run begins, from a restart file too.
    """
    text, start = "", 0
    for number, stage in enumerate(stages, 1):
        stop = start + stage.steps
        run = f"run {stop} upto start {start} stop {stop}"
        text += f"# Stage {number}: {stage.describe()}\n"
        if number == len(stages):
            return text + f"{_align(run)}\n"
        ended = [f"unfix {fix.split()[1]}" for fix in _list_fixes(stage, number, timestep)]
        commands = [run, *ended, *_list_fixes(stages[number], number + 1, timestep)]
        text += f'if              "$(step) < {stop}" then &\n'
        text += " &\n".join(f'                "{command}"' for command in commands) + "\n"
        start = stop
    return text


def moves_tilts(stage: Stage) -> bool:
    """Whether the stage needs a cell that LAMMPS knows as triclinic."""
    under_barostat = stage.pressure is not None and stage.barostat == "tri"
    return under_barostat or (stage.deform is not None and any(len(name) == 2 for name in stage.deform.components))


def _list_fixes(stage: Stage, number: int, timestep: float) -> list[str]:
    """The fixes of the `number`-th stage; their names are its own, so that a restart file gives each its own state."""
    first, last = stage.temperature
    thermostat = f"temp {first:.10g} {last:.10g} {100 * timestep:.10g}"
    if stage.pressure is None:
        fixes = [f"fix md_{number} all nvt {thermostat}"]
    else:
        barostat = f"{stage.barostat} {stage.pressure:.10g} {stage.pressure:.10g} {1000 * timestep:.10g}"
        fixes = [f"fix md_{number} all npt {thermostat} {barostat}"]
    if stage.deform is not None:
        fixes.append(
            f"fix deform_{number} all deform 1 {_format_motions(stage.deform, stage.steps * timestep)} remap x"
        )
    return fixes


def _format_motions(deform: Deformation, time: float) -> str:
    motions = [f"{component} erate {rate:.10g}" for component, rate in deform.engineering_rates(time).items()]
    motions += [f"{component} trate {rate:.10g}" for component, rate in deform.true_rate.items()]
    return " ".join(motions)


def _align(command: str) -> str:
    verb, _, rest = command.partition(" ")
    return f"{verb:<16}{rest}"


def _quote(commands: Sequence[str]) -> str:
    return " ".join(f'"{command}"' for command in commands)
