"""What is wrong with the oracle of a config: its name, its keywords, what it cannot compute. No label is computed."""

import contextlib
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.emt import parameters as emt_parameters

from mlip_auto.config import CampaignConfig
from mlip_auto.config_dft import Dft
from mlip_auto.oracles import ASE_CODES, ORACLES, make_calculator

LISTED_KEYWORDS = frozenset({"emt", "tblite"})
"""Codes whose ASE calculator lists all its keywords, and takes any other without a word."""


def list_codes() -> list[str]:
    """Names that `dft.code` may have."""
    return sorted({*ORACLES, *ASE_CODES})


def find_oracle_errors(config: CampaignConfig, directory: Path, start: Atoms | None) -> list[str]:
    """Errors of the section `dft`.

    Parameters
    ----------
    directory
        Where relative folders of the config start.
    start
        A structure of the campaign to construct the calculator for; None where none can be built.
    """
    dft, elements = config.dft.in_folder(directory), config.system.elements
    known = list_codes()
    if dft.code not in known:
        near = get_close_matches(dft.code, known, n=1)
        meant = f" ({near[0]!r} was meant?)" if near else ""
        return [
            f"dft.code: found {dft.code!r}{meant}; allowed: {', '.join(known)}; another code is added to ORACLES in "
            "mlip_auto/oracles.py (docs/oracles.md)"
        ]
    if dft.code == "espresso":
        from mlip_auto.espresso import find_espresso_errors

        return find_espresso_errors(dft, elements)
    unknown = sorted(set(elements) - set(emt_parameters))
    if dft.code == "emt" and unknown:
        return [
            f"dft.code: emt has no parameters for {', '.join(unknown)}; it knows {', '.join(emt_parameters)}: "
            "choose another code"
        ]
    fault = None if start is None else find_construction_fault(dft, start)
    return [fault] if fault else []


def find_construction_fault(dft: Dft, atoms: Atoms) -> str | None:
    """Why the calculator cannot be made here; None when it can. Whether its program then runs only a label shows."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            calculator: Any = make_calculator(dft, atoms.copy())
        except Exception as error:  # a calculator may raise anything; whatever it is, the user is told
            return (
                f"dft.code: {dft.code} cannot be set up here with dft.parameters {dft.parameters}: "
                f"{type(error).__name__}: {error}; install the code's Python package, tell ASE where its program is "
                "(docs/oracles.md), or correct the keywords"
            )
    if dft.code in LISTED_KEYWORDS:
        known = sorted(calculator.default_parameters)
        unknown = sorted(set(dft.parameters) - set(known))
        if unknown:
            return (
                f"dft.parameters.{unknown[0]}: {dft.code} has no such keyword and would ignore it; "
                f"allowed: {', '.join(known)}"
            )
    return None
