"""Section of the config for the program that runs MD."""

import shlex
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mlip_auto.config_types import Section


def _check_command(command: str) -> str:
    if not shlex.split(command):
        raise ValueError("is empty; name a program, e.g. lmp")
    return command


class Lammps(Section):
    """The program that runs MD."""

    engine: Literal["auto", "executable", "library"] = Field(
        "auto",
        description="`executable`: the LAMMPS of `command`, which needs the package ML-PACE; `library`: the LAMMPS of this environment, its forces and gamma from python-ace; `auto`: the executable where it passes a test run with gamma, else the library. Both run the same in.lammps; outcome.json says which, and why.",
    )
    command: Annotated[str, AfterValidator(_check_command)] = Field(
        "lmp",
        description="How to start LAMMPS, with its launcher and options, without `-in`; `{threads}` stands for `threads`: `mpirun -np {threads} lmp`, `srun lmp -k on g 1 -sf kk`.",
    )
    threads: int = Field(
        1, ge=1, description="Cores of one MD job: OpenMP threads, or MPI processes where `command` names {threads}."
    )
    restart_every: int = Field(
        500,
        ge=1,
        description="MD steps between two restart files, rounded up to a multiple of `exploration.gamma_every`: at most so many are lost when a job is killed.",
    )
