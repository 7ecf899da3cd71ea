"""What is under way in a generation, read off its files, wherever its jobs run: labels, and MD with its gamma."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress_bar import ProgressBar
from rich.table import Table

from mlip_auto.paths import CampaignPaths, GenerationPaths, WalkerPaths
from mlip_auto.structures import read_json

TAIL_BYTES = 4096  # of a log: some dozen lines of thermo output
_THERMO_STYLE = re.compile(r"^thermo_style\s+custom\s+(.+)$", re.MULTILINE)
_RUN = re.compile(r"^run\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Labelling:
    """Structures of a generation that have been dealt with (labelled or failed), of all that were selected."""

    done: int
    total: int


@dataclass(frozen=True)
class RunningMd:
    """One MD run: its last step that was written, of how many, and the largest gamma of an atom at it."""

    walker: str
    step: int
    steps: int
    gamma: float


def read_labelling(files: GenerationPaths) -> Labelling | None:
    """The labelling of a generation; None before its selection and after its last label."""
    if not files.selected.exists() or files.labels.exists():
        return None
    done = {record.stem: len(read_json(record)["structures"]) for record in files.list_shard_records()}
    for ledger in files.ledger("0000").parent.glob("*.json"):  # shards at work; what came from the store is not here
        done.setdefault(ledger.stem, len(read_json(ledger)))
    return Labelling(sum(done.values()), count_structures(files.selected))


def read_running_md(paths: CampaignPaths, generation: int) -> list[RunningMd]:
    """The MD runs that have begun and have no outcome yet, by name; after a killed job as it left them."""
    files = paths.generation(generation)
    runs = [WalkerPaths(log.parent) for log in sorted(paths.work(generation, "md").glob("*/log.lammps"))]
    running = [run for run in runs if not files.walker(run.directory.name).outcome.exists()]
    return [md for run in running if (md := _read_md(run)) is not None]


def show_live(paths: CampaignPaths, generation: int) -> Table:
    """A bar for the labels and one for each MD run; empty where nothing is under way."""
    table = Table.grid(padding=(0, 2))
    labelling = read_labelling(paths.generation(generation))
    if labelling:
        bar = ProgressBar(total=labelling.total, completed=labelling.done, width=30)
        table.add_row("labels", bar, f"{labelling.done}/{labelling.total}", "")
    for md in read_running_md(paths, generation):
        bar = ProgressBar(total=md.steps, completed=md.step, width=30)
        table.add_row(md.walker, bar, f"{md.step}/{md.steps} steps", f"γ {md.gamma:.2f}")
    return table


def describe_live(labelling: Labelling | None, running: Sequence[RunningMd]) -> list[str]:
    """The same in plain lines."""
    lines = [f"labels: {labelling.done} of {labelling.total}"] if labelling else []
    return lines + [f"{md.walker}: step {md.step} of {md.steps}, largest gamma {md.gamma:.2f}" for md in running]


def count_structures(file: Path) -> int:
    """Structures in an extxyz file, counted in its text: to read thousands of them would take seconds."""
    return file.read_bytes().count(b"structure_id=")


def _read_md(run: WalkerPaths) -> RunningMd | None:
    """From the last whole line of thermo output; None where there is none yet."""
    try:
        script = run.input.read_text()
        with run.log.open("rb") as log:
            log.seek(max(0, run.log.stat().st_size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")[:-1]
    except FileNotFoundError:  # the job begins anew at this moment
        return None
    style = _THERMO_STYLE.search(script)
    if style is None:
        return None
    columns = style[1].split()
    for line in reversed(lines):
        words = dict(zip(columns, line.split(), strict=False))
        if len(words) == len(columns) and re.fullmatch(r"\d+", words["step"]):
            steps = max(int(steps) for steps in _RUN.findall(script))
            return RunningMd(run.directory.name, int(words["step"]), steps, float(words["v_gamma_max"]))
    return None
