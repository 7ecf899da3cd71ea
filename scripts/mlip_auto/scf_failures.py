"""Why a calculation gave no label, recognised from what the code wrote."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """What went wrong, as far as a cure depends on it."""

    NOT_CONVERGED = "not_converged"
    DIAGONALISATION = "diagonalisation"
    S_MATRIX = "s_matrix"
    FORCES = "forces"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_TIME = "out_of_time"
    OUT_OF_DISK = "out_of_disk"
    MISSING_FILE = "missing_file"
    TRUNCATED = "truncated"
    KILLED = "killed"
    REFUSED = "refused"
    OTHER = "other"


HOPELESS = frozenset({Reason.OUT_OF_DISK, Reason.OUT_OF_TIME, Reason.MISSING_FILE, Reason.REFUSED})
"""What a further try of the same structure cannot cure, whatever the rung says."""


@dataclass(frozen=True)
class Failure:
    """Why there is no label, for the ladder (`reason`) and for a person (`message`)."""

    reason: Reason
    message: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class RefusedStructure(ValueError):
    """A structure that the settings cannot describe; nothing was run."""


@dataclass(frozen=True)
class RunReport:
    """What a code's own output says about one run."""

    code_version: str
    scf_steps: int | None = None
    fault: Failure | None = None


# In the order of the search: what names the cause stands before what may only follow from it. Messages of pw.x are
# those of its sources (errore calls of PW/src, LAXlib, UtilXlib), the rest those of gfortran, Open MPI, Slurm and ASE.
_PATTERNS: tuple[tuple[Reason, str], ...] = (
    (Reason.OUT_OF_DISK, r"no space left on device|disk quota exceeded|file size limit exceeded"),
    (
        Reason.OUT_OF_MEMORY,
        r"cannot allocate memory|error allocating|allocation failed|insufficient virtual memory|bad_alloc|out of memory"
        r"|oom[- _]kill|allocation would exceed memory limit",
    ),
    (Reason.OUT_OF_TIME, r"maximum cpu time exceeded|due to time limit"),
    (Reason.S_MATRIX, r"s matrix not positive definite|problems computing cholesky|cholesky failed"),
    (
        Reason.DIAGONALISATION,
        r"too many bands are not converged|eigenvectors failed to converge|error in routine +(?:c_bands|[cr]diagh?g|"
        r"p?[cr]diaghg|[cr]egterg|zhegv|dsygv)",
    ),
    (
        Reason.NOT_CONVERGED,
        r"convergence not achieved|(?:scf|did|does|could|has) not (?:be )?converged?|kohnshamconvergenceerror|scferror",
    ),
    (Reason.MISSING_FILE, r"file \S+ not found|no such file or directory|executable file not found|command not found"),
    (Reason.KILLED, r"signal 9|sigkill|returned non-zero exit status (?:137|143)|signals\.sig(?:kill|term)"),
)


def recognise(text: str) -> Reason:
    """The reason behind an output, the standard error and the exception that came of it, joined in `text`."""
    for reason, pattern in _PATTERNS:
        if re.search(pattern, text, re.IGNORECASE):
            return reason
    return Reason.OTHER
