"""The campaign's configuration: pydantic models whose descriptions are the reference page.

Units: K, bar, fs, Å, eV. Unknown keys are refused. What needs more than the config itself (files, cell sizes,
counts of environments) is in `check.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from mlip_auto.config_dft import Dft
from mlip_auto.config_exploration import Exploration
from mlip_auto.config_extraction import Extraction
from mlip_auto.config_file import ConfigError, describe_error, read_yaml
from mlip_auto.config_initial import Initial
from mlip_auto.config_lammps import Lammps
from mlip_auto.config_types import Element, Name, Positive, Section

ENVIRONMENTS_PER_FUNCTION = 5
"""Environments of an element wanted for each of its functions: MaxVol needs one, a fit needs more to be good elsewhere."""


class System(Section):
    """What the potential is for."""

    elements: list[Element] = Field(min_length=1, description="Chemical symbols the potential knows.")
    masses: dict[Element, Positive] = Field({}, description="Masses in u where they differ from ASE's standard masses.")

    @model_validator(mode="after")
    def _unique(self) -> "System":
        if len(set(self.elements)) != len(self.elements):
            raise ValueError(f"elements: {self.elements} names an element twice; name each once")
        return self


class Selection(Section):
    """D-optimality: which candidates are worth a label."""

    max_structures: int = Field(30, ge=1, description="Largest number of structures labelled in one generation.")


class AceBasis(Section):
    """The ACE basis, with pacemaker's own keys."""

    cutoff: Positive = Field(description="Radial cutoff in Å.")
    number_of_functions_per_element: int = Field(ge=1, description="Basis functions per element.")
    nradmax_by_orders: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=1, description="Radial functions by body order."
    )
    lmax_by_orders: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="Angular momentum by body order."
    )
    ndensity: int = Field(1, ge=1, le=2, description="Atomic densities: 1 (linear) or 2 (Finnis-Sinclair square root).")
    fs_parameters: list[float] = Field(
        [1.0, 1.0], description="Prefactor and power of each density: [1, 1] or [1, 1, 1, 0.5]."
    )
    npot: str = Field("FinnisSinclairShiftedScaled", description="Embedding function.")
    radbase: str = Field("SBessel", description="Radial basis.")
    radparameters: list[float] = Field([5.25], description="Parameters of the radial basis.")
    dcut: Positive = Field(0.01, description="Width of the cutoff function, Å.")

    @model_validator(mode="after")
    def _orders(self) -> "AceBasis":
        if len(self.nradmax_by_orders) != len(self.lmax_by_orders):
            raise ValueError(
                f"nradmax_by_orders has {len(self.nradmax_by_orders)} orders and lmax_by_orders {len(self.lmax_by_orders)}; give both the same"
            )
        if len(self.fs_parameters) != 2 * self.ndensity:
            raise ValueError(
                f"fs_parameters has {len(self.fs_parameters)} numbers; ndensity {self.ndensity} needs {2 * self.ndensity}"
            )
        return self


class Training(Section):
    """The fit."""

    solver: Literal["pacemaker", "linear"] = Field(
        "pacemaker",
        description="`pacemaker`: its CLI with the tensorpot backend, warm-started from the linear fit; `linear`: python-ace's linear solver alone (seconds).",
    )
    basis: AceBasis
    repulsion: Literal["auto", "none"] = Field(
        "auto",
        description="ZBL core repulsion inside the smallest allowed distance of each pair (`initial.min_distance`), or none.",
    )
    ridge: Positive = Field(1e-4, description="Regularisation of the linear fit.")
    energy_weight: Positive = Field(
        100.0, description="Weight of an energy per atom (eV/atom) against a force component (eV/Å) in the linear fit."
    )
    kappa: float = Field(
        0.3, ge=0, lt=1, description="pacemaker: share of the forces in its loss; energies have the rest, 1 - kappa."
    )
    maxiter: int = Field(100, ge=1, description="pacemaker: optimiser steps.")
    batch_size: int = Field(4, ge=1, description="pacemaker: structures a batch.")
    trainable_parameters: Literal["func", "ALL"] = Field(
        "func",
        description="pacemaker: train the function coefficients only, or the radial functions too (gamma then moves with each fit).",
    )
    held_out_fraction: float = Field(
        0.1, ge=0, lt=0.5, description="Share of labels, by content hash, that neither fit nor active set sees."
    )
    threads: int = Field(1, ge=1, description="Threads of the fit.")


class Loop(Section):
    """When to stop."""

    max_generations: int = Field(20, ge=1, description="Generations, the first included; then exit code 3.")
    confirmations: int = Field(
        2, ge=0, description="Fresh velocity seeds that must run clean too before the potential counts as converged."
    )


class ReferenceMd(Section):
    """MD by the oracle itself, the exact reference; for cheap oracles only."""

    steps: int = Field(500, ge=1, description="MD steps by the oracle at each walker's conditions.")
    every: int = Field(
        50, ge=1, description="Steps between two frames kept; the first fifth of the run is equilibration and not kept."
    )

    @property
    def equilibration(self) -> int:
        """Steps before frames are kept."""
        return round(0.2 * self.steps)

    @property
    def n_frames(self) -> int:
        return (self.steps - self.equilibration) // self.every

    @model_validator(mode="after")
    def _keeps_a_frame(self) -> "ReferenceMd":
        if self.n_frames < 1:
            raise ValueError(
                f"every: found {self.every}; at most {self.steps - self.equilibration} leaves a frame to keep, since the first "
                f"fifth of the {self.steps} steps is equilibration: lower it, or raise `steps`"
            )
        return self


class Validation(Section):
    """How the potential is judged."""

    reference_md: ReferenceMd | None = Field(
        None,
        description="True error on MD frames of the oracle: give this section for cheap oracles; none: not computed.",
    )


class CampaignConfig(Section):
    """A campaign of mlip-auto."""

    name: Name = Field(
        description="Name of the campaign, which its jobs carry: letters and digits, joined by single `-`, `_` or `.`."
    )
    seed: int = Field(ge=0, lt=2**31, description="Seed of everything random.")
    system: System
    initial: Initial
    selection: Selection = Selection()
    dft: Dft
    training: Training
    exploration: Exploration
    lammps: Lammps = Lammps()
    extraction: Extraction = Extraction()
    loop: Loop = Loop()
    validation: Validation = Validation()


def parse_config(content: Any) -> CampaignConfig:
    """Validate the content of a config file.

    Raises
    ------
    ConfigError
        Every error at once: its key, what was found, what is allowed.
    """
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"{content!r:.60}"
        raise ConfigError([f"found {found}; a config is a mapping of sections: `mlip-auto init` writes one"])
    try:
        return CampaignConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError([describe_error(entry, CampaignConfig) for entry in error.errors()]) from None


def parse_workflow_config(content: Mapping[str, Any]) -> CampaignConfig:
    """Validate the config as Snakemake holds it: beside the user's keys those that the driver sets by `--config`."""
    return parse_config({key: value for key, value in content.items() if key not in ("generation", "confirmation")})


def load_config(path: Path) -> CampaignConfig:
    """Read and validate a YAML config file; errors as in `parse_config`, those of the file included."""
    return parse_config(read_yaml(path))
