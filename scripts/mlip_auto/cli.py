"""The command `mlip-auto`. Heavy imports are inside the commands, so that --help and status answer at once."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mlip_auto import __version__, audit_cli, init_cli, store_cli

if TYPE_CHECKING:
    from mlip_auto.config import CampaignConfig

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Machine-learning interatomic potentials by unattended active learning.\n\n"
    "A campaign starts from a config alone. Each generation selects structures, labels them by DFT, fits an ACE "
    "potential and runs MD that halts where the potential does not know; what it met there is learnt in the next "
    "generation, until MD runs through and fresh velocities confirm it.\n\n"
    "First time: `mlip-auto init DIR`, `cd DIR`, read config/config.yaml, `mlip-auto check`, `mlip-auto run`, "
    "`mlip-auto export DIR`. Each command says what comes next. On a cluster: `run --profile slurm`.\n\n"
    "`mlip-auto --install-completion` lets your shell complete commands and flags.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mlip-auto {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command()(init_cli.init)
app.add_typer(store_cli.app, name="store")
app.command()(audit_cli.audit_buffer)

Directory = Annotated[
    Path, typer.Option("--directory", "-d", help="The campaign's folder: results/, store/ and work/ are made in it.")
]
Configfile = Annotated[
    Path | None, typer.Option("--configfile", help="The config; DIRECTORY/config/config.yaml where not given.")
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", help="Snakemake profile, e.g. profiles/slurm; profiles/local where not given."),
]
Cores = Annotated[
    int | None, typer.Option("--cores", "-c", min=1, help="Cores to use at once; the profile's where not given.")
]


@app.command()
def check(directory: Directory = Path(), configfile: Configfile = None) -> None:
    """Validate the config: every error at once, with its key, its value and the cure. Runs nothing.

    Exit codes: 0 good, 2 bad config.
    """
    config = _checked_config(directory, configfile)
    typer.echo(_describe_plan(config, directory))


@app.command()
def doctor(directory: Directory = Path(), configfile: Configfile = None, profile: Profile = None) -> None:
    """Try each part for real: a label, a fit, MD with gamma, Snakemake with the profile, the scheduler. One line each.

    Exit codes: 0 all usable, 1 a part is not (its line names the cure), 2 bad config.
    """
    from mlip_auto.doctor import examine
    from mlip_auto.snakemake_run import SnakemakeCall

    path = _config_path(directory, configfile)
    config = _load_config(path, directory)
    failed = []
    for finding in examine(config, SnakemakeCall(path, directory, profile)):
        cure = f"  Cure: {finding.cure}." if finding.cure else ""
        colour = {"ok": "green", "warning": "yellow", "failed": "red"}[finding.verdict]
        typer.echo(f"{typer.style(f'{finding.verdict:8}', colour)} {finding.part:10} {finding.text}{cure}")
        if finding.verdict == "failed":
            failed.append(finding.part)
    if failed:
        _fail(f"Not usable: {', '.join(failed)}. Cure them as their lines say, then run `mlip-auto doctor` again.", 1)
    typer.echo("All parts work. Next: `mlip-auto run`.")


@app.command()
def run(
    directory: Directory = Path(),
    configfile: Configfile = None,
    profile: Profile = None,
    cores: Cores = None,
    relabel: Annotated[
        bool,
        typer.Option("--relabel", help="Where `dft` asks for other settings: label all structures anew, then go on."),
    ] = False,
) -> None:
    """Run the campaign until it converges. Killed at any point and started again, it goes on from its files.

    In a terminal, bars show the labels and each MD run with its largest gamma; elsewhere each finished step is a line.
    `results/dashboard.html` is written anew after each generation.

    Exit codes: 0 converged, 1 failed, 2 bad config, 3 stopped by a limit of the config or because nothing new was
    learnt, 128 + N stopped by signal N.
    """
    from mlip_auto.driver import run_campaign
    from mlip_auto.processes import CampaignLocked
    from mlip_auto.progress import make_console
    from mlip_auto.snakemake_run import CampaignError, Interrupted, SnakemakeCall

    config = _checked_config(directory, configfile)
    call = SnakemakeCall(_config_path(directory, configfile), directory, profile, cores)
    try:
        code = run_campaign(config, call, make_console(), relabel)
    except (CampaignError, CampaignLocked) as error:
        _fail(str(error), 1)
    except Interrupted as interruption:
        _fail(str(interruption), 128 + interruption.signal)
    raise typer.Exit(code)


@app.command()
def status(
    directory: Directory = Path(),
    configfile: Configfile = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Where the campaign stands: its generations, labels, jobs and cost, what comes next, and who runs it."""
    from mlip_auto.paths import CampaignPaths
    from mlip_auto.progress import make_console
    from mlip_auto.status import collect_status, show_status

    content = collect_status(CampaignPaths(directory), _load_config(_config_path(directory, configfile), directory))
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        show_status(content, make_console())


@app.command()
def report(
    directory: Directory = Path(),
    configfile: Configfile = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .zip or .html file.")] = Path("report.zip"),
) -> None:
    """Write the Snakemake report with the figures of all generations."""
    import subprocess

    from mlip_auto.paths import CampaignPaths
    from mlip_auto.snakemake_run import CampaignError, SnakemakeCall
    from mlip_auto.state import read_summaries

    path = _config_path(directory, configfile)
    _load_config(path, directory)
    if not read_summaries(CampaignPaths(directory)):
        _fail(f"{directory / 'results'} holds no finished generation yet; next: `mlip-auto run`.", 1)
    last = len(read_summaries(CampaignPaths(directory))) - 1
    call = SnakemakeCall(path, directory)
    try:
        command = call.command("--report", str(output.resolve()), "--config", f"generation={last}")
    except CampaignError as error:
        _fail(str(error), 1)
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        _fail(f"{finished.stdout}\nSnakemake could not write the report; its reason stands above.", 1)
    typer.echo(f"Wrote {output}. Next: unpack it and open its report.html.")


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="The folder to write; its last part is the name of the export.")],
    directory: Directory = Path(),
    configfile: Configfile = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also where the campaign has not converged; the card says so.")
    ] = False,
) -> None:
    """Write the potential to a folder: its files, its training set and a card with lines for LAMMPS and ASE.

    Exit codes: 0 written, 1 refused, 2 bad config.
    """
    from mlip_auto.export import ExportRefused, export_potential
    from mlip_auto.paths import CampaignPaths

    path = _config_path(directory, configfile)
    config = _load_config(path, directory)
    try:
        generation = export_potential(CampaignPaths(directory), config, path, target, unfinished)
    except ExportRefused as refused:
        _fail(f"{refused}.", 1)
    typer.echo(f"Wrote the potential of generation {generation} to {target}. Next: read {target / 'README.md'}.")


def _config_path(directory: Path, configfile: Path | None) -> Path:
    return configfile or directory / "config" / "config.yaml"


def _load_config(path: Path, directory: Path) -> "CampaignConfig":
    from mlip_auto.config import ConfigError, load_config

    try:
        config = load_config(path)
    except ConfigError as error:
        _fail_config(path, error.errors)
    return config.model_copy(update={"dft": config.dft.in_folder(directory)})


def _checked_config(directory: Path, configfile: Path | None) -> "CampaignConfig":
    """The config after `check`; its warnings go to stderr, its errors end the program with exit code 2."""
    from mlip_auto.check import check_campaign

    path = _config_path(directory, configfile)
    config = _load_config(path, directory)
    found = check_campaign(config, directory)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if found.errors:
        _fail_config(path, found.errors)
    return config


def _describe_plan(config: "CampaignConfig", directory: Path) -> str:
    from mlip_auto.initial import count_candidates
    from mlip_auto.paths import CampaignPaths
    from mlip_auto.planning import count_shards
    from mlip_auto.walkers import base_walkers

    paths = CampaignPaths(directory)
    walkers = base_walkers(config)
    exploration, basis = config.exploration, config.training.basis
    runs = ", ".join(f"{walker.name} ({walker.steps * exploration.timestep / 1000:g} ps)" for walker in walkers)
    return (
        f"The config is good. {config.name} would make {count_candidates(config, directory)} structures of "
        f"{'-'.join(config.system.elements)}, label at most {config.selection.max_structures} a generation with "
        f"{config.dft.code} (generation 0: {count_shards(paths, config, 0)} jobs), fit "
        f"{basis.number_of_functions_per_element} functions per element with the solver {config.training.solver}, and "
        f"run MD of {runs} that halts above gamma {exploration.uncertainty_threshold:g}; then again with what it cut "
        f"out ({config.extraction.mode}), for at most {config.loop.max_generations} generations, until nothing halts "
        f"and {config.loop.confirmations} fresh velocity seeds confirm it. Next: `mlip-auto run`."
    )


def _fail_config(path: Path, errors: list[str]) -> NoReturn:
    lines = "\n".join(f"  {error}" for error in errors)
    _fail(f"{path}: {len(errors)} error{'s' if len(errors) > 1 else ''}; nothing was run.\n{lines}", 2)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
