"""Where every file of a campaign lies: the one place that spells paths.

The classes take wildcards as well as values (`GenerationPaths(Path("results/gen_{gen}"))`), so rules and
library name the same file by the same attribute.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WalkerPaths:
    """Files of one MD walker; `directory` is results/gen_NNN/md/{walker}."""

    directory: Path

    @property
    def input(self) -> Path:
        return self.directory / "in.lammps"

    @property
    def start(self) -> Path:
        """LAMMPS data file that in.lammps reads."""
        return self.directory / "start.data"

    @property
    def log(self) -> Path:
        return self.directory / "log.lammps"

    @property
    def dump(self) -> Path:
        return self.directory / "dump.lammpstrj"

    @property
    def restart(self) -> Path:
        """Last safe restart file of a run that did not complete. Never an output of a rule: the next generation's."""
        return self.directory / "safe.restart"

    @property
    def latest(self) -> Path:
        """Pattern of the files that hold a frame of a running MD each, `*` being its step."""
        return self.directory / "latest.*.lammpstrj"

    @property
    def outcome(self) -> Path:
        return self.directory / "outcome.json"


@dataclass(frozen=True)
class GenerationPaths:
    """Files of one generation; `directory` is results/gen_NNN."""

    directory: Path

    @classmethod
    def of_file(cls, file: Path | str) -> "GenerationPaths":
        """The generation that holds a file such as summary.json."""
        return cls(Path(file).parent)

    @property
    def candidates(self) -> Path:
        return self.directory / "candidates.extxyz"

    @property
    def selected(self) -> Path:
        return self.directory / "selected.extxyz"

    def shard_labels(self, shard: str | int) -> Path:
        return self.directory / "dft" / f"{shard}.extxyz"

    def shard_record(self, shard: str | int) -> Path:
        """JSON: status of each structure of the shard (completed, failed with its reason, pending), its cost."""
        return self.directory / "dft" / f"{shard}.json"

    def ledger(self, shard: str | int) -> Path:
        """JSON: what the shard's job paid for. Never an output of a rule: it must survive a killed job."""
        return self.directory / "ledger" / f"{shard}.json"

    @property
    def refused(self) -> Path:
        """JSON: why labels of the shards are not in `labels`, by structure id."""
        return self.directory / "refused.json"

    def list_shard_records(self) -> list[Path]:
        """Records of the shards that have ended, in order."""
        return sorted(self.shard_record("0000").parent.glob("*.json"))

    @property
    def labels(self) -> Path:
        return self.directory / "labels.extxyz"

    @property
    def training(self) -> Path:
        return self.directory / "training"

    @property
    def potential(self) -> Path:
        """B-basis potential (`potential.yaml`): training restarts from it, gamma is evaluated with it."""
        return self.training / "potential.yaml"

    @property
    def potential_yace(self) -> Path:
        return self.training / "potential.yace"

    @property
    def active_set(self) -> Path:
        return self.training / "potential.asi"

    @property
    def metrics(self) -> Path:
        return self.training / "metrics.json"

    @property
    def predictions(self) -> Path:
        """extxyz: labels with the model's energies and forces (`predicted_energy`, `predicted_forces`)."""
        return self.training / "predictions.extxyz"

    @property
    def forecasts(self) -> Path:
        """extxyz: this generation's labels as the potential before them predicts them; empty in generation 0."""
        return self.training / "forecasts.extxyz"

    def walker(self, walker: str) -> WalkerPaths:
        return WalkerPaths(self.directory / "md" / walker)

    @property
    def extracted(self) -> Path:
        return self.directory / "extracted.extxyz"

    @property
    def cuts_refused(self) -> Path:
        """JSON: which cuts were not made, and why: a list of sentences."""
        return self.directory / "cuts_refused.json"

    @property
    def summary(self) -> Path:
        return self.directory / "summary.json"

    @property
    def figure(self) -> Path:
        """Figure of this generation for the Snakemake report."""
        return self.directory / "generation.svg"


@dataclass(frozen=True)
class CampaignPaths:
    """Files of one campaign; `root` is the working folder of Snakemake."""

    root: Path = Path()

    @property
    def results(self) -> Path:
        return self.root / "results"

    def generation(self, number: int) -> GenerationPaths:
        return GenerationPaths(self.results / f"gen_{number:03d}")

    @property
    def pattern(self) -> GenerationPaths:
        """The same files with the Snakemake wildcard `{gen}` for the generation."""
        return GenerationPaths(self.results / "gen_{gen}")

    def reference(self, walker: str) -> Path:
        """MD frames of the oracle itself at the conditions of a walker: never trained on."""
        return self.results / "reference" / f"{walker}.extxyz"

    @property
    def database(self) -> Path:
        return self.results / "database.db"

    @property
    def dashboard(self) -> Path:
        return self.results / "dashboard.html"

    def buffer_audit(self, suffix: str) -> Path:
        """What `mlip-auto audit-buffer` found, as .json, .csv and .html."""
        return self.results / f"audit_buffer{suffix}"

    @property
    def driver_lock(self) -> Path:
        """JSON: the driver that runs the campaign."""
        return self.root / "work" / "driver.lock"

    @property
    def closing_words(self) -> Path:
        """What the last run of the driver said when it failed or was stopped; none of one that was killed by force."""
        return self.root / "work" / "closing_words.txt"

    def snakemake_log(self, generation: int) -> Path:
        """All that Snakemake printed for one generation."""
        return self.root / "work" / "logs" / f"snakemake_gen_{generation:03d}.log"

    def work(self, generation: int, step: str) -> Path:
        """Undeclared scratch of a step (restart files, interim potentials): survives a failed or killed job."""
        return self.root / "work" / f"gen_{generation:03d}" / step
