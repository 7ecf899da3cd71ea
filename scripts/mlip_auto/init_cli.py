"""`mlip-auto init`: a campaign folder from flags in a script, from questions in a terminal."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

Answer = TypeVar("Answer")


def init(
    directory: Annotated[Path, typer.Argument(help="The folder to make.")],
    elements: Annotated[
        str | None, typer.Option("--elements", "-e", help="Chemical symbols, such as `Cu,Au`.", show_default=False)
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            "--oracle",
            "-o",
            help="Where labels come from: `espresso`, `tblite` (GFN1-xTB), `emt` (free: Al Ni Cu Pd Ag Pt Au), or "
            "another calculator that ASE knows by name, such as `vasp`.",
            show_default=False,
        ),
    ] = None,
    temperatures: Annotated[
        str | None,
        typer.Option("--temperatures", "-T", help="Where you need the potential, in K: `300,900`.", show_default=False),
    ] = None,
    pressure: Annotated[
        float | None, typer.Option(help="MD at this pressure, in bar; at the fixed cell where not given.")
    ] = None,
    composition: Annotated[
        str | None, typer.Option(help="Formula of an alloy, such as `Cu3Au`; equal parts where not given.")
    ] = None,
    prototype: Annotated[
        str | None, typer.Option(help="Lattice: fcc, bcc, hcp or diamond; that of most elements where not given.")
    ] = None,
    a: Annotated[
        float | None, typer.Option(help="Lattice constant in Å; ASE's where not given, by Vegard's law for an alloy.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the campaign; its elements where not given.")] = None,
) -> None:
    """Write a campaign folder with a commented config, and link the profiles to where Snakemake finds them.

    In a terminal it asks for what no flag has told. In a script give at least `--elements`:

    `mlip-auto init alloy --elements Cu,Au --oracle emt --temperatures 300,900`

    Exit codes: 0 written, 1 the folder has a config already, 2 a flag is wrong or missing.
    """
    from mlip_auto.profiles import link_profiles
    from mlip_auto.starter import (
        Answers,
        NoStart,
        find_start_errors,
        parse_composition,
        parse_elements,
        parse_oracle,
        parse_temperatures,
        write_config,
    )
    from mlip_auto.structures import write_atomically

    target = directory / "config" / "config.yaml"
    if target.exists():
        _fail(f"{target} exists already; nothing was written. Choose another folder.", 1)
    asks = sys.stdin.isatty()
    try:
        if elements is None and not asks:
            raise NoStart("--elements: missing; name them, such as --elements Cu,Au")
        symbols = parse_elements(elements) if elements else _ask("Elements, such as Si or Cu,Au", parse_elements)
        fractions = parse_composition(composition, symbols) if composition else {}
        if not composition and asks and elements is None and len(symbols) > 1:
            fractions = _ask("Composition", lambda text: parse_composition(text, symbols), "".join(symbols))
        if asks and oracle is None:
            oracle = _ask("Labels by (espresso, tblite, emt, ...)", parse_oracle, "tblite")
        if asks and temperatures is None:
            kelvins = _ask("Temperatures in K", parse_temperatures, "300,900")
        else:
            kelvins = parse_temperatures(temperatures or "300,900")
        answers = Answers(
            elements=symbols,
            oracle=parse_oracle(oracle or "tblite"),
            temperatures=kelvins,
            pressure=pressure,
            composition=fractions,
            prototype=prototype,
            a=a,
            name=name,
        )
        text = write_config(answers)
    except NoStart as error:
        _fail(str(error), 2)
    if errors := find_start_errors(text):
        _fail(
            "\n".join(["Such a campaign is not possible; nothing was written.", *(f"  {error}" for error in errors)]), 2
        )
    with write_atomically(target) as aside:
        aside.write_text(text)
    for line in link_profiles():
        typer.echo(line)
    typer.echo(f"Wrote {target}. Next:\n{_describe_steps(directory, answers.oracle)}")


def _ask(question: str, parse: Callable[[str], Answer], default: str | None = None) -> Answer:
    """The parsed answer; one that cannot be read is asked for again."""
    from mlip_auto.starter import NoStart

    def parse_or_ask_again(text: str) -> Answer:
        try:
            return parse(text)
        except NoStart as error:
            raise typer.BadParameter(str(error)) from None

    return typer.prompt(question, default=default, value_proc=parse_or_ask_again)


def _describe_steps(directory: Path, oracle: str) -> str:
    steps = [
        (f"cd {directory}", ""),
        ("nano config/config.yaml", "read it: each key has a comment"),
        ("mlip-auto check", "what does not fit together; runs nothing"),
        ("mlip-auto doctor", "tries a label, a fit, MD"),
        ("mlip-auto run --cores 2", "until it converges; Ctrl-C stops it, the same command goes on"),
        ("mlip-auto status", "from another terminal; results/dashboard.html in a browser"),
        ("mlip-auto export ../potential", "the potential with its card and data"),
    ]
    if oracle == "espresso":
        steps.insert(1, ("mkdir pseudo", "and put a UPF file of each element there, by its name in the config"))
    return "\n".join(f"  {command:32}{'# ' + meaning if meaning else ''}".rstrip() for command, meaning in steps)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
