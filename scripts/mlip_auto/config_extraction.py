"""Section of the config for what is cut out of MD frames."""

from typing import Literal

from pydantic import Field

from mlip_auto.config_types import Positive, Section


class Extraction(Section):
    """What is cut out of a halted frame."""

    mode: Literal["cluster", "box", "cell"] = Field(
        "box",
        description="`cluster`: a sphere in vacuum; `box`: a periodic box commensurate with the crystal; `cell`: the whole frame.",
    )
    core_radius: Positive | None = Field(
        None,
        description="Atoms within this distance (Å) of the centre are trained on; the radial cutoff where not given. A cell is trained on whole.",
    )
    buffer: Positive | None = Field(
        None, description="cluster: width (Å) of the shell around the core; the radial cutoff where not given."
    )
    vacuum: Positive = Field(6.0, description="cluster: empty space (Å) between the atoms and the cell's faces.")
    box_side: Positive | None = Field(
        None, description="box: its side in Å; a multiple of the crystal's lattice constant, at least twice the cutoff."
    )
    max_clusters: int = Field(5, ge=1, description="Cuts taken from one walker.")
