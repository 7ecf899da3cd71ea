"""Section of the config for MD that halts by itself."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from mlip_auto.config_conditions import Conditions, Stage, Temperature, check_stage
from mlip_auto.config_initial import StructureSource
from mlip_auto.config_types import Name, Positive, Section


class WalkerStructure(StructureSource):
    """Where a walker starts: a crystal to build (`prototype`), a file to read (`file`), or a structure of the campaign's own (`data_set`): exactly one of the three."""

    sources: ClassVar[tuple[str, ...]] = ("prototype", "file", "data_set")

    data_set: Literal[True] | None = Field(
        None,
        description="`true`: start from one of the campaign's labelled periodic structures so far, drawn anew (seeded) for each run and repeated until it holds twice the cutoff.",
    )

    @model_validator(mode="after")
    def _labels_are_as_they_are(self) -> Self:
        if self.data_set and (self.composition or self.surface):
            key = "composition" if self.composition else "surface"
            raise ValueError(f"{key}: a labelled structure (data_set) is taken as it is; leave it out")
        return self


class Walker(Conditions):
    """MD runs from one structure: one at each of several temperatures, or one through a sequence of stages."""

    name: Name = Field(
        "md", description="First part of the walkers' names; the temperature follows where there are no `stages`."
    )
    structure: WalkerStructure
    temperatures: list[Temperature] = Field(
        [],
        description="Target temperatures in K: one MD run each. A pair [from, to] in the list is a run with a linear ramp.",
    )
    steps: int | None = Field(None, ge=1, description="MD steps; `exploration.steps` where not given.")
    stages: list[Stage] = Field(
        [],
        description="Instead of `temperatures`: one MD run through stages that follow each other, such as melt and quench. A halt ends them all.",
    )
    replicas: int = Field(1, ge=1, description="Runs of each, with their own velocities.")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="Seed of this walker's velocities (and of its draw from the data set); the campaign's `seed` where not given.",
    )

    @model_validator(mode="after")
    def _temperatures_or_stages(self) -> "Walker":
        if bool(self.temperatures) == bool(self.stages):
            raise ValueError(
                "give either `temperatures` (one MD run each) or `stages` (one MD run through all), not both and not neither"
            )
        misplaced = sorted({"pressure", "barostat", "deform", "steps"} & self.model_fields_set)
        if self.stages and misplaced:
            raise ValueError(f"{', '.join(misplaced)}: found beside `stages`; each stage has its own, write it there")
        return self

    def list_runs(self, default_steps: int) -> list[tuple[str, tuple[Stage, ...]]]:
        """Name and stages of each MD run, replicas apart; `default_steps` where the walker gives none."""
        if self.stages:
            return [(self.name, tuple(self.stages))]
        steps = self.steps or default_steps
        conditions = [
            Stage(temperature=pair, steps=steps, pressure=self.pressure, barostat=self.barostat, deform=self.deform)
            for pair in self.temperatures
        ]
        return [(f"{self.name}_{_name_temperature(stage.temperature)}", (stage,)) for stage in conditions]


def _name_temperature(temperature: tuple[float, float]) -> str:
    first, last = temperature
    return f"{first:g}K" if first == last else f"{first:g}-{last:g}K"


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
        2.0, ge=1, description="Atoms above this gamma in the frames kept of a halted walker are candidates too."
    )
    gamma_every: int = Field(10, ge=1, description="Steps between two evaluations of gamma.")
    dump_every: int | None = Field(
        None,
        ge=1,
        description="Steps between two frames that are kept for viewing, a multiple of `gamma_every`; a twentieth of the run where not given. Kept beside them: the last frames, and frames above `gamma_select`, at most a hundred a run (fewer of large ones).",
    )
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
    def _stages_are_possible(self) -> "Exploration":
        for number, walker in enumerate(self.walkers):
            inherited = "steps" if walker.steps is None and not walker.stages else None
            for _, stages in walker.list_runs(self.steps):
                for index, stage in enumerate(stages):
                    prefix = f"walkers[{number}]." + (f"stages[{index}]." if walker.stages else "")
                    check_stage(stage, self.gamma_every, self.timestep, prefix, inherited)
        if self.dump_every is not None and self.dump_every % self.gamma_every:
            raise ValueError(
                f"dump_every: found {self.dump_every}, not a multiple of gamma_every ({self.gamma_every}); frames are "
                f"written with their gamma: {self.dump_every + self.gamma_every - self.dump_every % self.gamma_every} would do"
            )
        return self
