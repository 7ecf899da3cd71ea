"""Where labels come from: one function that makes an ASE calculator, and the hash of the physics it was asked for."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ase.calculators.calculator import BaseCalculator, get_calculator_class

from mlip_auto.config_dft import Dft

GAMMA_ONLY_CODES = frozenset({"tblite"})
"""Codes that sample the Gamma point only: their labels of different cell sizes are not one data set."""


def make_calculator(dft: Dft) -> BaseCalculator:
    """The oracle: an ASE calculator with `energy` (eV) and `forces` (eV/Å). A site adds its own code here."""
    if dft.code == "tblite":
        from tblite.ase import TBLite

        return TBLite(**{"verbosity": 0, **dft.parameters})
    return get_calculator_class(dft.code)(**dft.parameters)


def describe_settings(dft: Dft) -> dict[str, Any]:
    """The physics asked for: what two labels must share to be one data set."""
    return {"code": dft.code, "parameters": dft.parameters}


def compute_settings_hash(dft: Dft) -> str:
    """sha256 of `describe_settings`, independent of the order of keys."""
    return hashlib.sha256(json.dumps(describe_settings(dft), sort_keys=True).encode()).hexdigest()


def get_code_version(dft: Dft) -> str:
    """Version of the package that computes the label; recorded beside it, not part of the settings hash."""
    package = "ase" if dft.code == "emt" else dft.code
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package}, through ase {version('ase')}"
