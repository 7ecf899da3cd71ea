"""The MD runs of a generation by name, with their seeds. Nothing heavy is imported: Snakemake parses with it."""

import hashlib
import re
from dataclasses import dataclass, replace

from mlip_auto.config import CampaignConfig
from mlip_auto.config_conditions import Stage
from mlip_auto.config_exploration import WalkerStructure

_CONFIRMATION = re.compile(r"(?P<base>.+)_c(?P<k>[1-9][0-9]*)")


@dataclass(frozen=True)
class WalkerSpec:
    """One MD run: where it starts, its stages, the seed of its velocities."""

    name: str
    structure: WalkerStructure
    stages: tuple[Stage, ...]
    seed: int

    @property
    def steps(self) -> int:
        """MD steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def hottest(self) -> float:
        """Largest target temperature, K."""
        return max(max(stage.temperature) for stage in self.stages)


def walker_seed(campaign_seed: int, generation: int, walker: str, confirmation: int = 0) -> int:
    """Velocity seed in 1..2^31-1 (what LAMMPS takes); `walker` is the base name, `confirmation` 0 is the first run."""
    key = f"{campaign_seed}/{generation}/{walker}/{confirmation}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % (2**31 - 1) + 1


def confirmation_name(walker: str, confirmation: int) -> str:
    """Name of the `confirmation`-th fresh-seed run of a walker, counted from 1."""
    return f"{walker}_c{confirmation}"


def is_confirmation(name: str) -> bool:
    return _CONFIRMATION.fullmatch(name) is not None


def base_walkers(config: CampaignConfig, generation: int = 0, confirmation: int = 0) -> list[WalkerSpec]:
    """The runs of a generation by their base names, in the order of the config; seeds are of that confirmation."""
    return [
        WalkerSpec(
            name,
            walker.structure,
            stages,
            walker_seed(config.seed if walker.seed is None else walker.seed, generation, name, confirmation),
        )
        for walker in config.exploration.walkers
        for run, stages in walker.list_runs(config.exploration.steps)
        for name in _replica_names(run, walker.replicas)
    ]


def _replica_names(run: str, replicas: int) -> list[str]:
    return [run] if replicas == 1 else [f"{run}_r{replica}" for replica in range(replicas)]


def find_walker(config: CampaignConfig, name: str, generation: int = 0) -> WalkerSpec:
    """The run of that name, a confirmation (`{walker}_c{k}`) included.

    Raises
    ------
    KeyError
        No walker of the config has this name.
    """
    match = _CONFIRMATION.fullmatch(name)
    base, confirmation = (match["base"], int(match["k"])) if match else (name, 0)
    for spec in base_walkers(config, generation, confirmation):
        if spec.name == base:
            return replace(spec, name=name)
    known = ", ".join(spec.name for spec in base_walkers(config))
    raise KeyError(f"no walker is named {name}; the config has {known}")
