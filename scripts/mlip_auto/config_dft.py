"""The `dft` section of the config: where labels come from, what they cost and when they count."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from mlip_auto.config_types import Element, Name, Positive, Section
from mlip_auto.namelists import flatten_parameters
from mlip_auto.scf_failures import HOPELESS, Reason

ESPRESSO_KEYS = ("kspacing", "pseudo_folder", "pseudopotentials", "command")


def _check_curable(reason: Reason) -> Reason:
    if reason in HOPELESS:
        raise ValueError("is never retried: no rung cures it")
    return reason


CurableReason = Annotated[
    Reason,
    AfterValidator(_check_curable),
    WithJsonSchema({"type": "string", "enum": [reason.value for reason in Reason if reason not in HOPELESS]}),
]


class Rung(Section):
    """One step of the recovery ladder: parameters laid over those of `dft.parameters` and of the rungs before it."""

    name: Name = Field(description="Name of the rung in records and reports.")
    cures: list[CurableReason] = Field(
        min_length=1, description="Reasons of a failure that this rung may cure; it is tried after no other."
    )
    parameters: dict[str, Any] = Field(
        {},
        description="Entries laid over `dft.parameters`. One that changes the converged result flags the label; espresso: all but those that steer the path to it (mixing, diagonalisation, steps, a smaller conv_thr).",
    )
    same_physics: bool = Field(
        False, description="Other codes than espresso: states that `parameters` do not change the converged result."
    )


ESPRESSO_LADDER = (
    Rung(name="again", cures=[Reason.KILLED, Reason.TRUNCATED]),
    Rung(name="small_mixing", cures=[Reason.NOT_CONVERGED], parameters={"mixing_beta": 0.3, "electron_maxstep": 200}),
    Rung(
        name="local_tf",
        cures=[Reason.NOT_CONVERGED],
        parameters={"mixing_mode": "local-TF", "mixing_beta": 0.2, "mixing_ndim": 12, "electron_maxstep": 200},
    ),
    Rung(
        name="conjugate_gradient",
        cures=[Reason.DIAGONALISATION, Reason.S_MATRIX, Reason.OUT_OF_MEMORY],
        parameters={"diagonalization": "cg"},
    ),
    Rung(
        name="more_steps",
        cures=[Reason.NOT_CONVERGED],
        parameters={"mixing_mode": "plain", "mixing_beta": 0.05, "electron_maxstep": 500},
    ),
    Rung(name="tight_scf", cures=[Reason.FORCES], parameters={"conv_thr": 1e-11, "electron_maxstep": 200}),
    Rung(
        name="more_smearing",
        cures=[Reason.NOT_CONVERGED, Reason.DIAGONALISATION, Reason.S_MATRIX],
        parameters={"occupations": "smearing", "smearing": "mv", "degauss": 0.05, "electron_maxstep": 200},
    ),
)


class Dft(Section):
    """Labels: energies and forces."""

    code: str = Field(
        description="`espresso` (pw.x of Quantum ESPRESSO), `tblite`, `emt`, or the name of another calculator in ASE."
    )
    parameters: dict[str, Any] = Field(
        {},
        description="Keywords of the ASE calculator, e.g. method: GFN1-xTB. espresso: entries of pw.x's namelists, flat (ecutwfc: 15) or by namelist (system: {ecutwfc: 15}); pw.x's own units (Ry, bohr). `tprnfor` is always on, `tstress` where the cell is periodic in 3D; `assume_isolated` applies to what it is meant for: 2D and esm to slabs, the others to clusters in vacuum.",
    )
    kspacing: Positive | None = Field(
        None,
        description="espresso: largest distance between k-points in 1/Å, with 2π, as VASP's KSPACING (ASE's value times 2π): n = ceil(b / kspacing) points along each periodic direction, b being the length of its reciprocal vector (2π over the distance of the lattice planes), Gamma-centred; 1 along vacuum, so that a cluster is computed at Gamma. Cubic 4-atom Al, a = 4.05 Å, b = 1.551/Å: 0.6 gives 3x3x3, 0.3 gives 6x6x6, 0.25 gives 7x7x7.",
    )
    pseudo_folder: Path | None = Field(None, description="espresso: folder of the pseudopotentials.")
    pseudopotentials: dict[Element, str] = Field(
        {},
        description="espresso: UPF file in `pseudo_folder` by element; one functional in all. Their sha256 is part of the settings.",
    )
    command: str | None = Field(
        None,
        description="espresso: how to start pw.x, without `-in`; `{threads}` stands for `dft.threads`: `mpirun -np {threads} pw.x -npool 2`, `srun pw.x`. `pw.x` where not given. The MPI must be the one that pw.x was built with.",
    )
    starting_moments: dict[Element, float] = Field(
        {},
        description="Starting magnetic moments in µB an atom by element (0 for others). espresso: sets `nspin: 2` with starting_magnetization = moment / valence electrons.",
    )
    recovery: list[Rung] | None = Field(
        None,
        description="Ladder for failed calculations: after a failure the first rung not yet tried that cures its reason, on top of the rungs before. Not given: for espresso "
        + ", ".join(f"`{rung.name}` ({' '.join(rung.cures)})" for rung in ESPRESSO_LADDER)
        + "; none for other codes.",
    )
    accept_flagged: bool = Field(
        False,
        description="Whether labels of a rung that changes the physics (more smearing) enter the training; if not, they fail with that reason and stay in the store.",
    )
    structures_per_shard: int = Field(4, ge=1, description="Structures labelled by one job.")
    threads: int = Field(
        1, ge=1, description="Threads of one labelling job: MPI processes where `command` names {threads}."
    )
    max_minutes: Positive | None = Field(
        None, description="Minutes for one structure, all its rungs together; then it fails as out_of_time."
    )
    max_memory_gb: Positive | None = Field(
        None, description="Memory (GB) of all processes of one structure; above it they end, as out_of_memory."
    )
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
    max_net_force: Positive = Field(
        0.05,
        description="Labels with a larger net force an atom (eV/Å) are refused. pw.x removes it itself: there `max_scf_correction` tells how converged the forces are.",
    )
    max_scf_correction: Positive = Field(
        0.05, description="espresso: largest `Total SCF correction` of the forces (eV/Å, as pw.x sums it)."
    )
    max_scf_correction_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1,
        description="espresso: the same against `Total force`; not asked where the correction is below a tenth of `max_scf_correction`, since a perfect crystal has no force.",
    )
    outlier_deviations: Positive | None = Field(
        6.0,
        description="A label whose largest force is so many robust standard deviations (1.4826 MAD of its logarithm) above the generation's median is refused; none: no such check. Needs 8 labels in the generation.",
    )
    store: Path = Field(Path("store"), description="Folder of finished labels, shared between campaigns if you like.")

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """The rungs in their order."""
        if self.recovery is None:
            return ESPRESSO_LADDER if self.code == "espresso" else ()
        return tuple(self.recovery)

    def in_folder(self, folder: Path) -> "Dft":
        """The same, for a program that works elsewhere than in `folder`, where relative folders start."""
        folders = {"store": self.store} | ({"pseudo_folder": self.pseudo_folder} if self.pseudo_folder else {})
        return self.model_copy(update={key: (folder / path).resolve() for key, path in folders.items()})

    @model_validator(mode="after")
    def _keys_of_the_code(self) -> "Dft":
        if self.code == "espresso":
            for key, parameters in [("parameters", self.parameters), *((r.name, r.parameters) for r in self.ladder)]:
                try:
                    flatten_parameters(parameters)
                except ValueError as error:
                    raise ValueError(f"{key}.{error}") from None
            missing = [key for key in ESPRESSO_KEYS[:3] if not getattr(self, key)]
            if missing:
                raise ValueError(f"{missing[0]}: missing; code espresso needs {', '.join(ESPRESSO_KEYS[:3])}")
        else:
            useless = [key for key in ESPRESSO_KEYS if getattr(self, key)]
            if useless:
                raise ValueError(
                    f"{useless[0]}: only code espresso uses it; {self.code} takes its keywords in `parameters`: remove it"
                )
        return self
