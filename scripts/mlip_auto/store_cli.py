"""The commands `mlip-auto store list|verify|export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from mlip_auto.store import LabelStore

app = typer.Typer(no_args_is_help=True, help="List, verify and export the labels of a store (`dft.store`).")

Folder = Annotated[Path, typer.Option("--store", help="The folder that `dft.store` names.")]


@app.command("list")
def list_settings(store: Folder = Path("store")) -> None:
    """Labels by settings hash: code, number, atoms, core-hours, damaged entries."""
    from rich.table import Table

    from mlip_auto.progress import make_console

    table = Table(box=None, pad_edge=False)
    for header in ("settings", "code", "labels", "atoms", "core-hours", "damaged"):
        table.add_column(header, justify="left" if header in ("settings", "code") else "right", no_wrap=True)
    for one in _open(store):
        code, labels, atoms, core_seconds = "-", 0, 0, 0.0
        for label in one.read_good():
            code = label.settings["code"]
            labels += 1
            atoms += len(label.forces)
            core_seconds += label.seconds * label.cores
        damaged = len(one.files()) - labels
        cells = (one.settings_hash[:12], code, labels, atoms, f"{core_seconds / 3600:.4f}", damaged)
        table.add_row(*map(str, cells))
    make_console().print(table)


@app.command()
def verify(store: Folder = Path("store")) -> None:
    """Read every entry; name each damaged file, which a campaign would compute anew.

    Exit codes: 0 all good, 1 some are damaged or there is no store.
    """
    from mlip_auto.store import DamagedEntry, read_entry

    files = [file for one in _open(store) for file in one.files()]
    damaged = 0
    for file in files:
        try:
            read_entry(file)
        except DamagedEntry as error:
            damaged += 1
            typer.echo(f"{file}: {error}")
    typer.echo(f"{len(files)} entries, {damaged} damaged.")
    if damaged:
        typer.echo(
            "A campaign that meets a damaged entry computes it anew; to be rid of it, delete the file.", err=True
        )
        raise typer.Exit(1)


@app.command()
def export(
    settings: Annotated[str, typer.Argument(help="First characters of the settings hash, as `list` shows it.")],
    output: Annotated[Path, typer.Argument(help="The extxyz file to write.")],
    store: Folder = Path("store"),
) -> None:
    """Write all good labels of one settings hash as extxyz: structure, energy (eV), forces (eV/Å), provenance."""
    from mlip_auto.structures import write_structures

    found = [one for one in _open(store) if one.settings_hash.startswith(settings)]
    if len(found) != 1:
        known = ", ".join(one.settings_hash[:12] for one in _open(store))
        _fail(f"{store}: {len(found)} settings hashes begin with {settings!r}; there are {known}: name one of them.")
    labels = [label.atoms for label in found[0].read_good()]
    if not labels:
        _fail(f"{found[0].folder} holds no good label; nothing was written. `mlip-auto store verify` says why.")
    write_structures(output, labels)
    left_out = len(found[0].files()) - len(labels)
    damaged = f" ({left_out} damaged left out)" if left_out else ""
    typer.echo(f"Wrote {len(labels)} labels{damaged} of settings {found[0].settings_hash[:12]} to {output}.")


def _open(store: Path) -> "list[LabelStore]":
    from mlip_auto.store import open_stores

    stores = open_stores(store)
    if not stores:
        _fail(f"{store}: no store is here; name the folder of `dft.store` with --store.")
    return stores


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
