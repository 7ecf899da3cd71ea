"""Where labels come from: one function that makes an ASE calculator, and the hash of the physics it was asked for."""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, get_calculator_class

from mlip_auto.config_dft import Dft

GAMMA_ONLY_CODES = frozenset({"tblite"})
"""Codes that sample the Gamma point only: their labels of different cell sizes are not one data set."""


def make_calculator(dft: Dft, atoms: Atoms, folder: Path = Path()) -> BaseCalculator:
    """The oracle for one structure: an ASE calculator with `energy` (eV) and `forces` (eV/Å).

    Its files go to `folder`. It may set the initial magnetic moments of `atoms`.
    """
    calculator: Any
    if dft.code in ORACLES:
        calculator = ORACLES[dft.code](dft, atoms)
    else:
        if dft.starting_moments:
            atoms.set_initial_magnetic_moments([dft.starting_moments.get(symbol, 0.0) for symbol in atoms.symbols])
        calculator = get_calculator_class(dft.code)(**dft.parameters)
    calculator.directory = folder
    return calculator


def _make_tblite(dft: Dft, atoms: Atoms) -> BaseCalculator:
    from tblite.ase import TBLite

    return TBLite(**{"verbosity": 0, **dft.parameters})


def _make_espresso(dft: Dft, atoms: Atoms) -> BaseCalculator:
    from mlip_auto.espresso import make_espresso

    return make_espresso(dft, atoms)


ORACLES: dict[str, Callable[[Dft, Atoms], BaseCalculator]] = {"espresso": _make_espresso, "tblite": _make_tblite}
"""Codes that need more than ASE's look-up by name. A site adds its own here (docs/oracles.md)."""

ASE_CODES = frozenset(
    {
        *("abinit", "aims", "castep", "cp2k", "dftb", "elk", "emt", "gpaw", "mopac", "nwchem", "octopus", "onetep"),
        *("openmx", "orca", "siesta", "vasp"),
    }
)
"""Codes with energies and forces that ASE finds by name and makes from keywords, `dft.parameters`."""


def describe_settings(dft: Dft) -> dict[str, Any]:
    """The physics asked for: what two labels must share to be one data set.

    Raises
    ------
    mlip_auto.pseudopotentials.PseudopotentialError
        espresso: a pseudopotential of the config cannot be read.
    """
    if dft.code == "espresso":
        from mlip_auto.espresso import describe_espresso

        return describe_espresso(dft)
    moments = {"starting_moments": dft.starting_moments} if dft.starting_moments else {}
    return {"code": dft.code, "parameters": dft.parameters, **moments}


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
