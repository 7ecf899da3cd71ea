"""What the driver shows: Snakemake's output as one line a step, a table a generation, the end of a failed job's log."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mlip_auto.live import show_live
from mlip_auto.paths import CampaignPaths

REFRESH_RATE = 2  # a second
TAIL = 15  # lines shown of a failed job's log

_RULE = re.compile(r"^(?:local)?rule (\w+):$")
_MESSAGE = re.compile(r"^Job (\d+): (.+)$")
_ERROR = re.compile(r"^Error in (?:group job|rule) (\w+):$")
_DETAIL = re.compile(r"^    (jobid|wildcards|log): (.+)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")
_NO_SLURM = re.compile(r"Unable to contact slurm controller")  # what sbatch says when slurmctld is away
_TOTAL = re.compile(r"^total\s+(\d+)$")


@dataclass
class Failure:
    """One failed job, as Snakemake reports it."""

    rule: str
    log: str | None = None

    def describe(self, root: Path) -> str:
        """Rule, log file, and what the end of that log says."""
        if self.log is None:
            return f"{self.rule} failed"
        path = root / self.log
        end = _find_end(path.read_text(errors="replace").splitlines()) if path.exists() else ["(no such file)"]
        return "\n".join([f"{self.rule} failed; the end of {path}:", *(f"    {line}" for line in end)])


@dataclass
class Progress:
    """Follows the lines that Snakemake prints; prints one line for each step that has finished.

    A terminal also shows the steps that are running, with a bar for the labels and for each MD run.
    """

    generation: int
    console: Console
    paths: CampaignPaths
    failures: list[Failure] = field(default_factory=list)
    heard: float = field(default_factory=time.monotonic)  # when the last line came
    lost_slurm: bool = False  # a job could not be sent
    _total: int = 0
    _done: int = 0
    _running: dict[str, tuple[str, float]] = field(default_factory=dict)
    _block: tuple[str, str] = ("", "")
    _jobid: str = ""
    _live: Live | None = None
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    @property
    def total(self) -> int:
        """Steps of this Snakemake; 0 before it has planned."""
        return self._total

    def feed(self, line: str) -> None:
        self.heard = time.monotonic()
        line = line.rstrip("\n")
        self.lost_slurm |= _NO_SLURM.search(line) is not None
        if not line.startswith(" "):
            self._block = ("", "")
        if match := _TOTAL.match(line):
            self._total, self._done = int(match[1]), 0
        elif match := _RULE.match(line):
            self._block = ("rule", match[1])
        elif match := _MESSAGE.match(line):
            self._start(match[1], match[2])
        elif match := _ERROR.match(line):
            self._block = ("error", match[1])
            self.failures.append(Failure(match[1]))
        elif match := _DETAIL.match(line):
            self._add_detail(match[1], match[2])
        elif match := _FINISHED.match(line):
            self._finish(match[1], match[2])

    def close(self) -> None:
        self._running.clear()
        self._show_running()

    def _add_detail(self, key: str, value: str) -> None:
        kind, rule = self._block
        if kind == "error" and key == "log":
            self.failures[-1].log = value.removesuffix(" (check log file(s) for error details)").split(", ")[0]
        elif kind == "rule" and key == "jobid":
            self._jobid = value
            self._start(value, rule)
        elif kind == "rule" and key == "wildcards":
            wildcards = [wildcard for wildcard in value.split(", ") if not wildcard.startswith("gen=")]
            self._start(self._jobid, " ".join([rule, *wildcards]))

    def _start(self, jobid: str, label: str) -> None:
        self._running[jobid] = (label, time.monotonic())
        self._show_running()

    def _finish(self, jobid: str, rule: str) -> None:
        label, started = self._running.pop(jobid, (rule, time.monotonic()))
        self._done += 1
        if rule != "all":
            count = f"{self._done:>{len(str(self._total))}}/{self._total}"
            say(self.console, f"gen {self.generation}  {count}  {label}  {time.monotonic() - started:.1f} s")
        self._show_running()

    def _show_running(self) -> None:
        if not self.console.is_terminal:
            return
        if self._running and self._live is None:
            self._live = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=REFRESH_RATE, transient=True
            )
            self._live.start()
        elif not self._running and self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        now = time.monotonic()
        steps = [f"{label} {now - started:.0f} s" for label, started in list(self._running.values()) if label != "all"]
        self._spinner.update(text=Text(", ".join(steps)))
        return Group(self._spinner, show_live(self.paths, self.generation))


def _find_end(lines: list[str]) -> list[str]:
    """At most TAIL lines: the last ones; after a Python error its message, without the traceback that the log keeps."""
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    after = range(frames[-1], len(lines)) if frames else ()
    message = next((number for number in after if not lines[number].startswith(" ")), None)
    if message is None:
        return lines[-TAIL:]
    return [lines[message], *lines[message + 1 :][1 - TAIL :]]


def make_console() -> Console:
    """A rich console; wide where the output is a file."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def say(console: Console, text: str) -> None:
    """Print text as it is: no markup, no colours, no wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def tabulate_generations(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """One row a generation, each some lines high so that 80 columns are enough.

    RMSE by rows: training set, held out, true (the worst walker's); `-` where there is none.
    """
    table = Table(box=None, pad_edge=False)
    for header in ("gen", "structures", "RMSE", "meV/Å", "meV/atom", "gamma"):
        table.add_column(header, justify="left" if header == "RMSE" else "right", no_wrap=True)
    table.add_column("MD: steps, outcome")
    table.add_column("min", justify="right", no_wrap=True)
    for summary in summaries:
        rmse = summary["rmse"]
        table.add_row(
            str(summary["generation"]),
            "\n".join(f"{summary[key]} {key}" for key in ("candidates", "selected", "labelled", "failed")),
            "train\nheld out\ntrue",
            _format_errors(rmse, "force"),
            _format_errors(rmse, "energy"),
            "-" if summary["gamma_max"] is None else f"{summary['gamma_max']:.2f}",
            "\n".join(
                f"{name} {walker['step']}/{walker['steps']} {walker['outcome']}"
                for name, walker in summary["walkers"].items()
            ),
            f"{summary['minutes']:.1f}",
        )
    return table


def _format_errors(rmse: Mapping[str, Any], quantity: str) -> str:
    """Training, held-out and true error, a line each, in thousandths of the summary's unit."""
    errors = [
        rmse["train"][quantity],
        rmse["held_out"][quantity] if rmse["held_out"] else None,
        max((walker[quantity] for walker in (rmse["true"] or {}).values()), default=None),
    ]
    return "\n".join("-" if error is None else f"{1000 * error:.1f}" for error in errors)
