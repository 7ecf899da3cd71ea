"""Section of the config for what is cut out of MD frames."""

from typing import Literal

from pydantic import Field

from mlip_auto.config_types import Positive, Section


class Extraction(Section):
    """What is cut out of a halted frame."""

    mode: Literal["auto", "cell", "box", "cluster"] = Field(
        "auto",
        description="`cell`: the whole frame; `box`: a periodic box commensurate with the crystal; `cluster`: a sphere in vacuum; `auto`: the cell where it has at most `max_atoms`, else the box, else (no box fits, or molecules) the cluster. Each cut says why.",
    )
    bonding: Literal["auto", "metallic", "covalent", "ionic", "molecular"] = Field(
        "auto",
        description="`ionic`: boxes keep the ratio of the elements, so that they stay neutral; `molecular`: clusters hold whole molecules, and mode auto takes clusters. `auto` tells metallic, ionic and covalent by the elements, never molecular.",
    )
    max_atoms: int = Field(
        200, ge=1, description="Atoms of the largest cut that DFT can afford; a larger one is refused."
    )
    core_radius: Positive | None = Field(
        None,
        description="Atoms within this distance (Å) of the centre stay exactly as in the frame, and are audited; the radial cutoff where not given. Those within the cutoff and 0.3 Å stay in any case.",
    )
    buffer: Positive | None = Field(
        None,
        description="cluster: width (Å) of the shell around the core; 0.8 of the radial cutoff where not given. A force depends on atoms up to twice the cutoff away.",
    )
    trained_radius: Positive | None = Field(
        None,
        description="Atoms within this distance (Å) of the centre are trained on. Where not given: in a box all atoms, with its energy, but with a code that samples the Gamma point only (tblite) those within `core_radius`, without energy; in a cluster those within `core_radius`, none nearer to the surface than 1.1 cutoffs. A box counts its energy where all its atoms are trained on; a cell always is trained on whole.",
    )
    vacuum: Positive = Field(6.0, description="cluster: empty space (Å) between the atoms and the cell's faces.")
    box_side: Positive | None = Field(
        None,
        description="box: its side in Å, a multiple of the crystal's lattice constant, at least twice the cutoff. Where not given: as many crystal cells as hold the core, and more where the audit asks for them.",
    )
    max_clusters: int = Field(10, ge=1, description="Cuts taken from one walker in one generation, at most.")
    min_descriptor_distance: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="A centre is left out when its extrapolation differs by less than this share from that of one chosen before: max |(b - b') A⁻¹| / max(gamma, gamma').",
    )
    max_force_change: Positive = Field(
        5.0,
        description="Audit: a cut is enlarged or refused when the model's force on a core atom differs by more than this (eV/Å) from that in the frame. Healed boxes of hot Al stay below 3, the same boxes before healing reach 9.",
    )
