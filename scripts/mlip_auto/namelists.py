"""Entries of pw.x's namelists: which there are, which are the workflow's own, which change the result."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

NAMELISTS = ("control", "system", "electrons")
# DFT+U until QE 7.0, which ASE's list of a newer version has no more.
OLD_ENTRIES = ["lda_plus_u", "lda_plus_u_kind", "hubbard_u", "hubbard_j", "hubbard_j0", "u_projection_type"]

OWN = frozenset(
    {"calculation", "restart_mode", "outdir", "wfcdir", "prefix", "pseudo_dir", "tprnfor", "tstress", "max_seconds"}
    | {"ibrav", "celldm", "a", "b", "c", "cosab", "cosac", "cosbc", "nat", "ntyp", "starting_magnetization"}
)
"""Entries that follow from the structure, from other keys of the config or from where a calculation runs."""

NUMERICS = frozenset(
    {"mixing_mode", "mixing_beta", "mixing_ndim", "mixing_fixed_ns", "electron_maxstep", "scf_must_converge"}
    | {"adaptive_thr", "conv_thr_init", "conv_thr_multi", "diagonalization", "diago_thr_init", "diago_cg_maxiter"}
    | {"diago_david_ndim", "diago_rmm_ndim", "diago_rmm_conv", "diago_gs_nblock", "diago_full_acc"}
    | {"startingpot", "startingwfc", "title", "verbosity", "iprint", "disk_io"}
)
"""Entries that steer the path to the converged result, or what is written, and not the result."""

DEFAULT_CONV_THR = 1e-6  # Ry, pw.x's own


@cache
def list_entries() -> dict[str, list[str]]:
    """Entries of each namelist that a calculation may need, in lower case."""
    from ase.io.espresso_namelist.keys import ALL_KEYS  # brings all of scipy along, which `mlip-auto status` can spare

    known = {name: [key.lower() for key in ALL_KEYS["pw"][name]] for name in NAMELISTS}
    return known | {"system": known["system"] + OLD_ENTRIES}


def flatten_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Entries given flat or by namelist, as one flat mapping with names in lower case.

    YAML reads `1e-8` (without a point) as text: numbers in text become numbers here, as they would in Fortran.

    Raises
    ------
    ValueError
        An entry that pw.x does not know, or one of `OWN`.
    """
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        inner = value if isinstance(value, Mapping) else {name: value}
        if isinstance(value, Mapping) and name.lower() not in NAMELISTS:
            raise ValueError(f"{name}: not a namelist of pw.x; allowed: {', '.join(NAMELISTS)}")
        for key, entry in inner.items():
            flat[key.lower()] = _as_number(entry)
    known = {key for keys in list_entries().values() for key in keys}
    for key in flat:
        base = key.partition("(")[0]
        if base in OWN:
            raise ValueError(
                f"{key}: set by mlip-auto from the structure and the other keys of `dft`; remove it here"
                + (" and give `starting_moments`" if base == "starting_magnetization" else "")
            )
        if base not in known:
            raise ValueError(f"{key}: not an entry of pw.x's namelists {', '.join(NAMELISTS)}; correct its name")
        if key == "scf_must_converge" and flat[key] is False:
            raise ValueError(f"{key}: false lets unconverged results through; remove it")
    return flat


def nest_parameters(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Flat entries by namelist, as ASE writes them without loss: it drops flat ones whose case is not its own."""
    return {
        name: {key: value for key, value in flat.items() if key.partition("(")[0] in keys}
        for name, keys in list_entries().items()
    }


def find_physics(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Entries of `after` that make another result than `before`: neither `NUMERICS` nor a smaller conv_thr."""
    return sorted(
        key
        for key, value in after.items()
        if key not in NUMERICS
        and before.get(key) != value
        and not (key == "conv_thr" and value <= before.get(key, DEFAULT_CONV_THR))
    )


def _as_number(value: Any) -> Any:
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value.lower().replace("d", "e"))
    return value
