"""Conditions of an MD run, stage by stage: temperature or ramp, barostat, deformation."""

from math import expm1
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mlip_auto.config_types import Positive, Section

Component = Literal["x", "y", "z", "xy", "xz", "yz"]
LENGTHS = ("x", "y", "z")


def _lift_constant(temperature: Any) -> Any:
    if isinstance(temperature, list | tuple):
        return temperature
    if not isinstance(temperature, int | float) or temperature <= 0:
        raise ValueError("a temperature in K is a number above 0, or two of them, [from, to]")
    return temperature, temperature


_PAIR = {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]}
Temperature = Annotated[
    tuple[Positive, Positive],
    BeforeValidator(_lift_constant),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _PAIR]}),
]
"""Target temperature in K at the start and at the end; one number stands for both."""


class Deformation(Section):
    """How the cell is deformed (LAMMPS's `fix deform`, atoms moved along): total strains or rates by component. x, y, z are lengths, xy, xz, yz tilts over the height, in LAMMPS's orientation of the cell (first vector along x, second in the xy plane)."""

    strain: dict[Component, Annotated[float, Field(gt=-1)]] = Field(
        {},
        description="Engineering strain at the end, reached at a constant rate: -0.1 makes a length a tenth shorter.",
    )
    engineering_rate: dict[Component, float] = Field(
        {}, description="Rate in 1/ps relative to the length (for a tilt: the height) at the start."
    )
    true_rate: dict[Literal["x", "y", "z"], float] = Field(
        {}, description="Rate in 1/ps relative to the present length: it grows as exp(rate × time)."
    )

    @model_validator(mode="after")
    def _one_motion_each(self) -> "Deformation":
        named = [*self.strain, *self.engineering_rate, *self.true_rate]
        if not named:
            raise ValueError(
                "names no component; give `strain`, `engineering_rate` or `true_rate`, e.g. strain: {x: -0.1}"
            )
        twice = sorted({component for component in named if named.count(component) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is deformed in two ways; give each component one strain or one rate")
        return self

    @property
    def components(self) -> tuple[str, ...]:
        return (*self.strain, *self.engineering_rate, *self.true_rate)

    def engineering_rates(self, time: float) -> dict[str, float]:
        """Rates (1/ps) of the components that move at a constant engineering rate during `time` (ps)."""
        reaching = {str(component): strain / time for component, strain in self.strain.items()}
        return reaching | {str(component): rate for component, rate in self.engineering_rate.items()}

    def final_strains(self, time: float) -> dict[str, float]:
        """Engineering strain of each component after `time` (ps)."""
        strains = {component: rate * time for component, rate in self.engineering_rates(time).items()}
        return strains | {str(component): expm1(rate * time) for component, rate in self.true_rate.items()}


class Conditions(Section):
    """What acts on the cell."""

    pressure: float | None = Field(None, description="Target pressure in bar (NPT); none: fixed cell (NVT).")
    barostat: Literal["iso", "aniso", "tri"] = Field(
        "iso",
        description="With a pressure: `iso`: the cell keeps its shape; `aniso`: its three lengths move by themselves; `tri`: its tilts too.",
    )
    deform: Deformation | None = None

    @model_validator(mode="after")
    def _barostat_and_deformation_fit(self) -> "Conditions":
        if self.pressure is None and self.barostat != "iso":
            raise ValueError(
                f"barostat: found {self.barostat!r} without a pressure; give `pressure` in bar, or leave it out"
            )
        if self.deform is None or self.pressure is None:
            return self
        controlled = (*LENGTHS, "xy", "xz", "yz") if self.barostat == "tri" else LENGTHS
        both = [component for component in self.deform.components if component in controlled]
        if both:
            raise ValueError(
                f"deform: {', '.join(both)} is deformed and under the barostat ({self.barostat}, {self.pressure:g} bar) at once; "
                "leave `pressure` out, or deform only components that the barostat leaves alone (tilts with iso and aniso)"
            )
        return self


class Stage(Conditions):
    """A part of an MD run under its own conditions."""

    temperature: Temperature = Field(
        description="Target temperature in K; two numbers [from, to] are a linear ramp over the stage."
    )
    steps: int = Field(ge=1, description="MD steps of the stage; a multiple of `gamma_every`.")

    def temperature_at(self, step: int) -> float:
        """Target temperature (K) `step` steps after the stage's start."""
        first, last = self.temperature
        return first + (last - first) * step / self.steps

    def describe(self) -> str:
        """The conditions in a few words, e.g. `300 to 900 K, 0 bar (iso)`."""
        words = [describe_temperature(self.temperature)]
        if self.pressure is not None:
            words.append(f"{self.pressure:g} bar ({self.barostat})")
        elif self.deform is None:
            words.append("fixed cell")
        if self.deform is not None:
            words.append(f"{' and '.join(self.deform.components)} deformed")
        return ", ".join(words)


def describe_temperature(temperature: tuple[float, float]) -> str:
    """`300 K`, or `300 to 900 K` for a ramp."""
    first, last = temperature
    return f"{first:g} K" if first == last else f"{first:g} to {last:g} K"


def check_stage(
    stage: Stage, gamma_every: int, timestep: float, prefix: str = "", steps_key: str | None = None
) -> None:
    """Refuse a stage whose last step has no gamma, or that leaves the cell without a length.

    Parameters
    ----------
    timestep
        In fs.
    prefix, steps_key
        What stands before a key in the message; the key of the steps where it is another.

    Raises
    ------
    ValueError
        Key, what was found, what would do.
    """
    if stage.steps % gamma_every:
        raise ValueError(
            f"{steps_key or f'{prefix}steps'}: found {stage.steps}, not a multiple of gamma_every ({gamma_every}); the last "
            f"step of a run needs its gamma: {stage.steps + gamma_every - stage.steps % gamma_every} would do"
        )
    if stage.deform is None:
        return
    for component, strain in stage.deform.final_strains(stage.steps * timestep / 1000).items():
        if component in LENGTHS and strain <= -1:
            raise ValueError(
                f"{prefix}deform.engineering_rate.{component}: a strain of {strain:g} after {stage.steps} steps; above -1 "
                "the cell is left with a length: lower the rate or the steps"
            )
