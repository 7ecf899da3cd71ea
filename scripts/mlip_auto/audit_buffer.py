"""Buffer convergence: how wide a cut must be until the oracle's forces on its core are those of the parent frame."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from ase import Atoms
from pyace.basis import BBasisConfiguration

from mlip_auto.ace import predict
from mlip_auto.config_dft import Dft
from mlip_auto.labelling import label_structures
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import structure_id, write_atomically, write_json
from mlip_auto.trial_cuts import AuditFrame, TrialCut

MILLI = 1000.0  # eV/Å to meV/Å


@dataclass(frozen=True)
class AuditedCut:
    """How far the forces on the core of one cut are from those in its parent.

    Attributes
    ----------
    buffer
        Å between the core and the surface of a cluster, or half the smallest height of a box less the core's radius.
    rmse, largest
        Oracle: RMSE over force components and largest |difference| of an atom, meV/Å; None where a label is missing.
    model_rmse, model_largest
        The same for the current potential; None where there is none yet.
    reason
        Why the oracle gave no label.
    """

    mode: str
    buffer: float
    center: int
    atoms: int
    core_atoms: int
    rmse: float | None
    largest: float | None
    model_rmse: float | None
    model_largest: float | None
    seconds: float
    reason: str | None


@dataclass(frozen=True)
class BufferAudit:
    """All cuts of an audit, what they were compared with, and the smallest buffer (Å) that is wide enough by mode."""

    origin: str
    frame_atoms: int
    core_radius: float
    tolerance: float
    reference: str
    enough: dict[str, float | None]
    cuts: list[AuditedCut]
    left_out: list[str]


def audit_cuts(
    frame: AuditFrame,
    cuts: Sequence[TrialCut],
    left_out: Sequence[str],
    core_radius: float,
    tolerance: float,
    max_atoms: int,
    dft: Dft,
    scratch: Path,
    potential: Path | None,
) -> BufferAudit:
    """Label the cuts and their parent by the campaign's oracle, through its store, and compare the forces on the core.

    The parent is the frame itself where it has at most `max_atoms` atoms, else the widest cluster of each centre.

    Parameters
    ----------
    tolerance
        meV/Å: largest RMSE of a buffer that counts as wide enough.
    scratch
        Folder of the calculations.
    potential
        potential.yaml of the current potential: its forces are compared in the same way, against the whole frame.

    Raises
    ------
    ValueError
        There is nothing to compare with: the label of the parent failed, or there is no cluster to stand for it.
    """
    bare = Atoms(frame.atoms.numbers, positions=frame.atoms.positions, cell=frame.atoms.cell, pbc=frame.atoms.pbc)
    bare.info["structure_id"] = structure_id(bare)
    whole = len(bare) <= max_atoms
    labelled = label_structures([*([bare] if whole else []), *(cut.atoms for cut in cuts)], dft, scratch)
    forces = {atoms.info["structure_id"]: atoms.get_forces() for atoms in labelled.labels}
    if whole:
        if bare.info["structure_id"] not in forces:
            raise ValueError(f"the parent has no label: {labelled.records[bare.info['structure_id']]['reason']}")
        in_parent = dict.fromkeys((cut.center for cut in cuts), forces[bare.info["structure_id"]])
        compared, reference = list(cuts), f"the whole frame, {len(bare)} atoms"
    else:
        widest = _find_widest(cuts, forces)
        in_parent = {center: _spread(cut, forces, len(bare)) for center, cut in widest.items()}
        compared = [cut for cut in cuts if cut is not widest.get(cut.center)]
        buffer, sizes = min(cut.buffer for cut in widest.values()), [len(cut.atoms) for cut in widest.values()]
        reference = f"the widest cluster of each centre, with a buffer of {buffer:g} Å and up to {max(sizes)} atoms"
    model, in_model = {}, np.zeros(0)
    if potential is not None:
        predictions = predict(BBasisConfiguration(str(potential)), [bare, *(cut.atoms for cut in cuts)])
        in_model = next(predictions)[1]
        model = {
            cut.atoms.info["structure_id"]: predicted for cut, (_, predicted) in zip(cuts, predictions, strict=True)
        }
    audited = []
    for cut in compared:
        identifier = cut.atoms.info["structure_id"]
        record = labelled.records[identifier]
        audited.append(
            AuditedCut(
                cut.mode,
                cut.buffer,
                cut.center,
                len(cut.atoms),
                len(cut.core),
                *_compare(forces.get(identifier), in_parent.get(cut.center), cut),
                *_compare(model.get(identifier), in_model, cut),
                record["seconds"],
                record["reason"],
            )
        )
    enough = {mode: find_smallest_buffer(audited, mode, tolerance) for mode in dict.fromkeys(cut.mode for cut in cuts)}
    return BufferAudit(frame.origin, len(bare), core_radius, tolerance, reference, enough, audited, list(left_out))


def _find_widest(cuts: Sequence[TrialCut], forces: Mapping[str, np.ndarray]) -> dict[int, TrialCut]:
    """The widest cluster with a label by centre."""
    labelled = [cut for cut in cuts if cut.mode == "cluster" and cut.atoms.info["structure_id"] in forces]
    if not labelled:
        raise ValueError("the frame is larger than --max-atoms, and no cluster with a label can stand for it")
    return {cut.center: cut for cut in sorted(labelled, key=lambda cut: cut.buffer)}


def _spread(cut: TrialCut, forces: Mapping[str, np.ndarray], n_frame: int) -> np.ndarray:
    """Forces on the core of a cut in the order of the frame's atoms; NaN elsewhere."""
    spread = np.full((n_frame, 3), np.nan)
    spread[cut.parents] = forces[cut.atoms.info["structure_id"]][cut.core]
    return spread


def _compare(
    forces: np.ndarray | None, in_parent: np.ndarray | None, cut: TrialCut
) -> tuple[float | None, float | None]:
    """RMSE over components and largest |difference| on the core, meV/Å; None where there is nothing to compare."""
    if forces is None or in_parent is None:
        return None, None
    difference = MILLI * (forces[cut.core] - in_parent[cut.parents])
    return float(np.sqrt(np.mean(difference**2))), float(np.linalg.norm(difference, axis=1).max())


def find_smallest_buffer(cuts: Sequence[AuditedCut], mode: str, tolerance: float) -> float | None:
    """The smallest buffer (Å) of `mode` from which on the RMSE stays within `tolerance` (meV/Å); None: there is none.

    A width with a missing label is not within it.
    """
    smallest = None
    for row in reversed([row for row in tabulate_audit(cuts) if row["mode"] == mode]):
        if row["rmse"] is None or row["rmse"] > tolerance or row["failed"]:
            break
        smallest = row["buffer"]
    return smallest


def tabulate_audit(cuts: Sequence[AuditedCut]) -> list[dict[str, Any]]:
    """A row a mode and buffer, by rising buffer: all centres' cores together."""
    rows = []
    for mode, buffer in dict.fromkeys((cut.mode, cut.buffer) for cut in cuts):
        group = [cut for cut in cuts if (cut.mode, cut.buffer) == (mode, buffer)]
        row: dict[str, Any] = {"mode": mode, "buffer": buffer, "atoms": float(np.mean([cut.atoms for cut in group]))}
        for prefix in ("", "model_"):
            measured = [cut for cut in group if getattr(cut, f"{prefix}rmse") is not None]
            weights = [cut.core_atoms for cut in measured]
            squares = [getattr(cut, f"{prefix}rmse") ** 2 for cut in measured]
            row[f"{prefix}rmse"] = float(np.sqrt(np.average(squares, weights=weights))) if measured else None
            row[f"{prefix}largest"] = max((getattr(cut, f"{prefix}largest") for cut in measured), default=None)
        row["seconds"] = sum(cut.seconds for cut in group) / len(group)
        row["failed"] = sum(cut.reason is not None for cut in group)
        rows.append(row)
    return rows


def write_audit(audit: BufferAudit, paths: CampaignPaths) -> None:
    """Write the audit as JSON and CSV (a row a cut) and as a plot, each atomically."""
    write_json(paths.buffer_audit(".json"), asdict(audit) | {"table": tabulate_audit(audit.cuts)})
    with write_atomically(paths.buffer_audit(".csv")) as aside:
        pd.DataFrame([asdict(cut) for cut in audit.cuts]).to_csv(aside, index=False)
    with write_atomically(paths.buffer_audit(".html")) as aside:
        plot_audit(audit).write_html(aside, include_plotlyjs=True)


def plot_audit(audit: BufferAudit) -> go.Figure:
    """RMSE of the core's forces against the buffer, by mode, of the oracle and of the current potential."""
    figure = go.Figure()
    rows = tabulate_audit(audit.cuts)
    for mode, symbol in (("cluster", "circle"), ("box", "square")):
        for key, name, dash in (("rmse", "oracle", "solid"), ("model_rmse", "current potential", "dot")):
            found = [row for row in rows if row["mode"] == mode and row[key] is not None]
            if found:
                figure.add_scatter(
                    x=[row["buffer"] for row in found],
                    y=[row[key] for row in found],
                    customdata=[row["atoms"] for row in found],
                    name=f"{mode}, {name}",
                    mode="lines+markers",
                    line={"dash": dash},
                    marker={"symbol": symbol, "size": 9},
                    hovertemplate="%{y:.3g} meV/Å with %{x:.2f} Å, %{customdata:.0f} atoms",
                )
    figure.add_hline(y=audit.tolerance, line={"dash": "dash", "color": "#5f6b76"}, annotation_text="tolerance")
    figure.update_layout(
        template="plotly_white",
        title=f"Forces on a core of {audit.core_radius:g} Å against {audit.reference}: {audit.origin}",
        xaxis_title="buffer (Å)",
        yaxis_title="RMSE of force components (meV/Å)",
    )
    figure.update_yaxes(type="log")
    return figure
