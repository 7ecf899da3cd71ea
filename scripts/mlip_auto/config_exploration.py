"""Section of the config for MD that halts by itself."""

from typing import Literal

from pydantic import Field, model_validator

from mlip_auto.config_initial import StructureSource
from mlip_auto.config_types import Name, Positive, Section


class Walker(Section):
    """MD runs at one or several temperatures from one structure."""

    name: Name = Field("md", description="First part of the walkers' names; the temperature follows.")
    structure: StructureSource
    temperatures: list[Positive] = Field(min_length=1, description="Target temperatures in K: one MD run each.")
    pressure: float | None = Field(None, description="Target pressure in bar (NPT); none: fixed cell (NVT).")
    steps: int | None = Field(None, ge=1, description="MD steps; `exploration.steps` where not given.")
    replicas: int = Field(1, ge=1, description="Runs a temperature, each with its own velocities.")


class Exploration(Section):
    """MD that halts by itself."""

    timestep: Positive = Field(1.0, le=20, description="MD time step in fs.")
    steps: int = Field(10000, ge=1, description="MD steps of a walker.")
    uncertainty_threshold: float = Field(
        5.0,
        ge=1,
        description="Extrapolation grade gamma above which MD halts. Inside the training set gamma is at most 1.",
    )
    gamma_select: float = Field(
        2.0, ge=1, description="Atoms above this gamma in the last frames of a halted walker are candidates too."
    )
    gamma_every: int = Field(10, ge=1, description="Steps between two evaluations of gamma.")
    skin: Positive = Field(1.0, description="Skin of LAMMPS's neighbour list in Å.")
    max_minutes: Positive | None = Field(
        None,
        description="Wall-clock limit of one MD job; a walker that reaches it goes on from its last restart file in the next call. The run time that the profile gives the job (`runtime`) is a limit too, less a tenth.",
    )
    resume: Literal["start", "restart"] = Field(
        "start",
        description="Where a walker that did not complete begins in the next generation: at its start, or with `restart` at its last restart file with gamma up to `gamma_select`. Confirmations always begin at the start, and so do walkers from the data set.",
    )
    walkers: list[Walker] = Field(min_length=1, description="Target conditions: where the potential is needed.")

    @model_validator(mode="after")
    def _last_step_has_gamma(self) -> "Exploration":
        for number, walker in enumerate(self.walkers):
            key, steps = ("steps", self.steps) if walker.steps is None else (f"walkers[{number}].steps", walker.steps)
            if steps % self.gamma_every:
                raise ValueError(
                    f"{key}: found {steps}, not a multiple of gamma_every ({self.gamma_every}); "
                    f"the last step of a run needs its gamma: {steps + self.gamma_every - steps % self.gamma_every} would do"
                )
        return self
