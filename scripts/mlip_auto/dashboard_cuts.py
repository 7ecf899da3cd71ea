"""What was cut out of MD, for the dashboard's 3D view: why each cut was made, and what became of it."""

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.data import covalent_radii

from mlip_auto.paths import CampaignPaths
from mlip_auto.report_data import get_panel
from mlip_auto.structures import get_force_mask, read_structures
from mlip_auto.summary import read_records

MAX_ATOMS = 40_000  # of all cuts drawn, some 25 bytes each


def describe_cuts(paths: CampaignPaths, generations: Sequence[int]) -> list[dict[str, Any]]:
    """Every cut of these generations, the newest first, each generation's by falling gamma.

    Keys: `generation` (whose MD it comes from), `walker`, `run` (a confirmation's own name), `step`, `gamma`, `origin`,
    `n_atoms`, `n_core`, `fate`, `why`, `atoms` (for the view; None beyond MAX_ATOMS in all).
    """
    cuts = []
    drawn = 0
    for number in sorted(generations, reverse=True):
        selected, records = _read_next(paths, number + 1)
        extracted = paths.generation(number).extracted
        if not extracted.exists():  # its confirmations are under way: it is being made anew
            continue
        for atoms in sorted(read_structures(extracted), key=_get_gamma, reverse=True):
            identifier = atoms.info["structure_id"]
            drawn += len(atoms)
            cuts.append(
                {
                    "generation": number,
                    "walker": get_panel(atoms.info["walker"]),
                    "run": atoms.info["walker"],
                    "step": int(atoms.info["step"]),
                    "gamma": _get_gamma(atoms),
                    "origin": atoms.info["origin"],
                    "n_atoms": len(atoms),
                    "n_core": int(get_force_mask(atoms).sum()),
                    "fate": _describe_fate(identifier, selected, records),
                    "why": _describe_choice(identifier, selected),
                    "atoms": _describe_atoms(atoms) if drawn <= MAX_ATOMS else None,
                }
            )
    return cuts


def _get_gamma(atoms: Atoms) -> float:
    return float(atoms.info["gamma"])


def _read_next(paths: CampaignPaths, number: int) -> tuple[dict[str, Atoms] | None, dict[str, dict[str, Any]]]:
    """What the next generation selected, by structure id (None: it has not yet), and the records of its labels."""
    files = paths.generation(number)
    if not files.selected.exists():
        return None, {}
    return {atoms.info["structure_id"]: atoms for atoms in read_structures(files.selected)}, read_records(files)


def _describe_fate(identifier: str, selected: dict[str, Atoms] | None, records: dict[str, dict[str, Any]]) -> str:
    if selected is None:
        return "waits"
    if identifier not in selected:
        return "not selected"
    status = records.get(identifier, {"status": "pending"})["status"]
    return {"completed": "labelled", "failed": "label failed", "pending": "waits for its label"}[status]


def _describe_choice(identifier: str, selected: dict[str, Atoms] | None) -> str:
    if selected is None:
        return "the next generation has not selected yet"
    if identifier not in selected:
        return "owned no row of the joint active set, or its γ was below 1: it would teach nothing new"
    return str(selected[identifier].info["reason"])


def _describe_atoms(atoms: Atoms) -> dict[str, Any]:
    """Arrays for the view; in a cell every atom is drawn at its image nearest to the centre."""
    center = int(atoms.info["center_atom_index"])
    positions = atoms.positions - atoms.positions[center]
    cell = None
    if atoms.pbc.any():
        positions = atoms.get_distances(center, range(len(atoms)), mic=True, vector=True)
        cell = atoms.cell[:].round(2).tolist()
    return {
        "elements": atoms.get_chemical_symbols(),
        "x": positions.round(2).T.tolist(),
        "gamma": [float(f"{value:.3g}") for value in atoms.arrays["gamma"]],
        "core": get_force_mask(atoms).astype(int).tolist(),
        "center": center,
        "cell": cell,
        "radii": {
            symbol: float(covalent_radii[number]) for symbol, number in zip(atoms.symbols, atoms.numbers, strict=True)
        },
    }
