"""The recovery ladder: after a failure, the next rung that can cure its reason."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip_auto.calculation import Result, calculate
from mlip_auto.config_dft import Dft, Rung
from mlip_auto.namelists import find_physics, flatten_parameters
from mlip_auto.scf_failures import HOPELESS, Failure, Reason

FIRST = "as_asked"
"""Name of the first try, without any rung."""


@dataclass(frozen=True)
class Climb:
    """How a structure fared on the ladder.

    `rungs` has {rung, outcome, seconds, scf_steps} of each try in its order, outcome "completed" or the reason and its
    message; `flag` says what of the physics the rungs have changed (None: nothing).
    """

    outcome: Result | Failure
    rungs: list[dict[str, Any]]
    flag: str | None = None


def climb(atoms: Atoms, dft: Dft, folder: Path, seconds: float | None = None) -> Climb:
    """Calculate `atoms`; while that fails, again with the next rung of `dft.ladder` that cures the last reason.

    The parameters of a rung are laid over those before it, and each rung is tried once. Each try has a folder of its
    own in `folder`, named by its number and rung.

    Parameters
    ----------
    seconds
        Time limit of all tries together.
    """
    end = None if seconds is None else time.monotonic() + seconds
    rungs: list[dict[str, Any]] = []
    untried = list(dft.ladder)
    parameters: Mapping[str, Any] = dft.parameters
    name, flag = FIRST, None
    while True:
        started = time.monotonic()
        calculation = calculate(
            atoms,
            dft.model_copy(update={"parameters": parameters}),
            folder / f"{len(rungs)}_{name}",
            None if end is None else max(0.0, end - started),
        )
        outcome = calculation.outcome
        rungs.append(
            {
                "rung": name,
                "outcome": "completed" if isinstance(outcome, Result) else str(outcome),
                "seconds": round(time.monotonic() - started, 3),
                "scf_steps": calculation.scf_steps,
            }
        )
        if isinstance(outcome, Result):
            return Climb(outcome, rungs, flag)
        rung = choose_rung(untried, outcome.reason)
        if rung is None:
            return Climb(outcome, rungs, flag)
        untried.remove(rung)
        parameters = lay_over(dft, parameters, rung)
        name, flag = rung.name, find_flag(dft, parameters, rung, flag)


def choose_rung(untried: list[Rung], reason: Reason) -> Rung | None:
    """The first rung that can cure `reason`; None when there is none or when it is hopeless."""
    if reason in HOPELESS:
        return None
    return next((rung for rung in untried if reason in rung.cures), None)


def lay_over(dft: Dft, parameters: Mapping[str, Any], rung: Rung) -> dict[str, Any]:
    """`parameters` with those of the rung on top."""
    if dft.code == "espresso":
        return flatten_parameters(parameters) | flatten_parameters(rung.parameters)
    return {**parameters, **rung.parameters}


def find_flag(dft: Dft, parameters: Mapping[str, Any], rung: Rung, earlier: str | None) -> str | None:
    """What of the physics asked for the rungs have changed so far; None when nothing."""
    if dft.code == "espresso":
        changed = find_physics(flatten_parameters(dft.parameters), flatten_parameters(parameters))
    else:
        changed = [] if rung.same_physics else sorted(rung.parameters)
    return f"rung {rung.name} changed {', '.join(changed)}" if changed else earlier
