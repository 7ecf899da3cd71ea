"""Headers of UPF pseudopotential files (versions 1 and 2), and whether a set of them fits a system."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Short names of QE's functionals (Modules/funct.f90), whose files name either them or their four parts.
_SHORT_NAMES = {
    "SLA PZ NOGX NOGC": "PZ",
    "LDA": "PZ",
    "SLA PW NOGX NOGC": "PW",
    "SLA PW PBE PBE": "PBE",
    "SLA PW PBX PBC": "PBE",
    "SLA PW PSX PSC": "PBESOL",
    "SLA PW GGX GGC": "PW91",
    "SLA LYP B88 BLYP": "BLYP",
    "SLA PW TPSS TPSS": "TPSS",
}


class PseudopotentialError(ValueError):
    """A file that is no pseudopotential, or not the one it should be; the message names it."""


@dataclass(frozen=True)
class Pseudopotential:
    """What a UPF header says: element, functional (short name of QE), valence electrons; and the file's sha256."""

    file: Path
    element: str
    functional: str
    valence: float
    sha256: str


def read_pseudopotential(file: Path) -> Pseudopotential:
    """Read the header of a UPF file.

    Raises
    ------
    PseudopotentialError
        No such file, or no UPF header with element, functional and valence in it.
    """
    file = Path(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PseudopotentialError(
            f"{file}: {error.strerror or error}; put it there, or correct its name or dft.pseudo_folder"
        ) from None
    text = content.decode(errors="replace")
    attributes = re.search(r"<PP_HEADER\s+([^>]*?)/?>", text)
    header = re.search(r"<PP_HEADER>(.*?)</PP_HEADER>", text, re.DOTALL)
    if attributes is not None:
        found = {key: value.strip() for key, _, value in re.findall(r"(\w+)\s*=\s*(['\"])(.*?)\2", attributes[1])}
    elif header is not None:
        found = _read_old_header(header[1])
    else:
        found = {}
    missing = {"element", "functional", "z_valence"} - found.keys()
    if missing:
        raise PseudopotentialError(f"{file}: no UPF header with {', '.join(sorted(missing))}; give a UPF file")
    functional = " ".join(found["functional"].upper().replace("+", " ").replace("-", " ").split())
    return Pseudopotential(
        file=file,
        element=found["element"],
        functional=_SHORT_NAMES.get(functional, functional),
        valence=float(found["z_valence"].lower().replace("d", "e")),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _read_old_header(header: str) -> dict[str, str]:
    """UPF version 1: a value and what it means on each line."""
    patterns = {
        "element": r"^\s*(\S+)\s+Element",
        "functional": r"^\s*(\S+\s+\S+\s+\S+\s+\S+)\s+\S*\s*Exchange-Correlation",
        "z_valence": r"^\s*(\S+)\s+Z valence",
    }
    matches = {key: re.search(pattern, header, re.MULTILINE) for key, pattern in patterns.items()}
    return {key: match[1] for key, match in matches.items() if match is not None}


def find_pseudopotential_errors(
    folder: Path, files: Mapping[str, str], elements: Iterable[str], one_functional: bool
) -> list[str]:
    """What is wrong with the pseudopotentials of some elements: missing, of another element, of mixed functionals.

    Parameters
    ----------
    one_functional
        False where the input sets the functional itself (`input_dft`): then the files may differ.
    """
    errors = []
    functionals: dict[str, str] = {}
    for element in elements:
        if element not in files:
            errors.append(f"dft.pseudopotentials: no file for {element}; name its UPF file in {folder}")
            continue
        try:
            pseudopotential = read_pseudopotential(folder / files[element])
        except PseudopotentialError as error:
            errors.append(f"dft.pseudopotentials.{element}: {error}")
            continue
        if pseudopotential.element != element:
            errors.append(
                f"dft.pseudopotentials.{element}: {pseudopotential.file} is a pseudopotential of "
                f"{pseudopotential.element}; name the one of {element}"
            )
        functionals[element] = pseudopotential.functional
    if one_functional and len(set(functionals.values())) > 1:
        named = ", ".join(f"{element} {functional}" for element, functional in functionals.items())
        errors.append(f"dft.pseudopotentials: of different functionals ({named}); take all of one")
    return errors
