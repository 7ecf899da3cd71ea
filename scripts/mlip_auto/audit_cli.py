"""The command `mlip-auto audit-buffer`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from mlip_auto.audit_buffer import BufferAudit

Directory = Annotated[Path, typer.Option("--directory", "-d", help="The campaign's folder; results/ gets the files.")]
Configfile = Annotated[
    Path | None, typer.Option("--configfile", help="The config; DIRECTORY/config/config.yaml where not given.")
]
WIDTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)  # of the potential's cutoff, where no --buffer is given


def audit_buffer(
    directory: Directory = Path(),
    configfile: Configfile = None,
    frame: Annotated[Path | None, typer.Option("--frame", help="A structure file that ASE reads, to cut from.")] = None,
    walker: Annotated[
        str | None, typer.Option("--walker", help="Cut from the last frame in which this walker halted.")
    ] = None,
    rattle: Annotated[
        float, typer.Option("--rattle", min=0, help="Å; displacements of the start structure where nothing has halted.")
    ] = 0.1,
    centers: Annotated[int, typer.Option("--centers", min=1, help="Atoms whose surroundings are cut.")] = 3,
    buffer: Annotated[
        list[float] | None,
        typer.Option("--buffer", min=0, help="Å; give it once for each width. 0 to 1.2 cutoffs where not given."),
    ] = None,
    core: Annotated[
        float | None,
        typer.Option(
            "--core", min=0.1, help="Å; radius of the core that is compared; `extraction.core_radius` where not given."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="meV/Å; the RMSE of a buffer that is wide enough.")
    ] = 20.0,
    max_atoms: Annotated[
        int, typer.Option("--max-atoms", min=1, help="The oracle labels nothing larger than this.")
    ] = 500,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the centres; the campaign's where not given.")
    ] = None,
) -> None:
    """How wide a cut must be: the oracle's forces on the core of cuts of several widths against the parent frame.

    Cuts from --frame, or the last frame in which a walker halted, or a rattled start structure. Labels go through the
    campaign's store: a killed audit goes on where it stopped. Writes results/audit_buffer.json, .csv and .html.

    Exit codes: 0 audited, 1 the audit is not possible, 2 bad config.
    """
    from mlip_auto.audit_buffer import audit_cuts, write_audit
    from mlip_auto.cli import _config_path, _fail, _load_config
    from mlip_auto.paths import CampaignPaths
    from mlip_auto.progress import make_console, say
    from mlip_auto.trial_cuts import choose_audit_centers, find_audit_frame, find_potential, make_trial_cuts

    config = _load_config(_config_path(directory, configfile), directory)
    paths = CampaignPaths(directory)
    cutoff = config.training.basis.cutoff
    core_radius = core or config.extraction.core_radius or cutoff
    console = make_console()
    try:
        found = find_audit_frame(config, paths, frame, walker, rattle)
        chosen = choose_audit_centers(found.atoms, centers, config.seed if seed is None else seed)
        widths = buffer or [round(width * cutoff, 2) for width in WIDTHS]
        cuts, left_out = make_trial_cuts(found, chosen, widths, core_radius, max_atoms, config)
        for reason in left_out:
            say(console, f"not cut: {reason}")
        if not cuts:
            _fail("No cut could be made; the lines above say why.", 1)
        sizes = [len(cut.atoms) for cut in cuts]
        say(
            console,
            f"{found.origin}, {len(found.atoms)} atoms: {len(cuts)} cuts of {min(sizes)} to {max(sizes)} atoms by "
            f"{config.dft.code}; labels in the store are not paid again.",
        )
        audit = audit_cuts(
            found,
            cuts,
            left_out,
            core_radius=core_radius,
            tolerance=tolerance,
            max_atoms=max_atoms,
            dft=config.dft,
            scratch=paths.root / "work" / "audit_buffer",
            potential=find_potential(paths),
        )
    except ValueError as error:
        _fail(f"{error}.", 1)
    write_audit(audit, paths)
    console.print(_make_table(audit))
    for line in _describe(audit):
        say(console, line)
    say(console, f"Wrote {paths.buffer_audit('.html')}, .json and .csv.")


def _make_table(audit: "BufferAudit") -> "Table":
    from rich.table import Table

    from mlip_auto.audit_buffer import tabulate_audit

    table = Table(box=None, pad_edge=False)
    columns = ("cut", "buffer Å", "atoms", "oracle RMSE", "largest", "potential RMSE", "largest", "s a label")
    for number, header in enumerate(columns):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    for row in tabulate_audit(audit.cuts):
        errors = (row[key] for key in ("rmse", "largest", "model_rmse", "model_largest"))
        table.add_row(
            row["mode"],
            f"{row['buffer']:.2f}",
            f"{row['atoms']:.0f}",
            *("-" if error is None else f"{error:.1f}" for error in errors),
            f"{row['seconds']:.2f}",
        )
    return table


def _describe(audit: "BufferAudit") -> list[str]:
    """What the table means, a line a mode; failed labels with their reason."""
    lines = [
        f"Errors in meV/Å of the forces on a core of {audit.core_radius:g} Å, in the cut against {audit.reference}."
    ]
    for mode, width in audit.enough.items():
        lines.append(
            f"{mode}: no width tried is within {audit.tolerance:g} meV/Å; try wider ones, boxes in a larger frame"
            if width is None
            else f"{mode}: a buffer of {width:.2f} Å is the smallest one within {audit.tolerance:g} meV/Å"
        )
    lines += [
        f"no label: {cut.mode}, buffer {cut.buffer:g} Å, atom {cut.center}: {cut.reason}"
        for cut in audit.cuts
        if cut.reason is not None
    ]
    return lines
