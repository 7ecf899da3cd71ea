"""The `dft` section of the config: where labels come from, what they cost and when they count."""

from pathlib import Path
from typing import Any

from pydantic import Field

from mlip_auto.config_types import Positive, Section


class Dft(Section):
    """Labels: energies and forces."""

    code: str = Field(description="`tblite`, `emt`, or the name of another calculator in ASE.")
    parameters: dict[str, Any] = Field({}, description="Keywords of the ASE calculator, e.g. method: GFN1-xTB.")
    structures_per_shard: int = Field(4, ge=1, description="Structures labelled by one job.")
    threads: int = Field(1, ge=1, description="Threads of one labelling job.")
    max_failed_fraction: float = Field(
        0.2, ge=0, le=1, description="The generation goes on while at most this fraction of its structures failed."
    )
    max_wait: Positive | None = Field(
        None,
        description="Minutes after the selection; what is unlabelled by then stays pending and is a candidate of the next generation.",
    )
    max_core_hours: Positive | None = Field(
        None,
        description="Core-hours of DFT that the campaign may pay; then labelling takes no new structure, the generation ends with the labels it has, and the loop stops (exit code 3).",
    )
    max_force: Positive = Field(50.0, description="Labels with a larger force (eV/Å) are refused.")
    store: Path = Field(Path("store"), description="Folder of finished labels, shared between campaigns if you like.")
