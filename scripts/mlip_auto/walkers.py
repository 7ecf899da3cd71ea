"""The MD runs of a generation by name, with their seeds. Nothing heavy is imported: Snakemake parses with it."""

import hashlib
import re
from dataclasses import dataclass

from mlip_auto.config import CampaignConfig
from mlip_auto.config_initial import StructureSource

_CONFIRMATION = re.compile(r"(?P<base>.+)_c(?P<k>[1-9][0-9]*)")


@dataclass(frozen=True)
class WalkerSpec:
    """One MD run: temperature in K, pressure in bar (None: fixed cell), length in steps, seed of the velocities."""

    name: str
    structure: StructureSource
    temperature: float
    pressure: float | None
    steps: int
    seed: int


def walker_seed(campaign_seed: int, generation: int, walker: str, confirmation: int = 0) -> int:
    """Velocity seed in 1..2^31-1 (what LAMMPS takes); `walker` is the base name, `confirmation` 0 is the first run."""
    key = f"{campaign_seed}/{generation}/{walker}/{confirmation}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % (2**31 - 1) + 1


def confirmation_name(walker: str, confirmation: int) -> str:
    """Name of the `confirmation`-th fresh-seed run of a walker, counted from 1."""
    return f"{walker}_c{confirmation}"


def is_confirmation(name: str) -> bool:
    return _CONFIRMATION.fullmatch(name) is not None


def base_walkers(config: CampaignConfig, generation: int = 0) -> list[WalkerSpec]:
    """The first run of each walker in a generation, in the order of the config."""
    specs = []
    for walker in config.exploration.walkers:
        for temperature in walker.temperatures:
            for replica in range(walker.replicas):
                name = f"{walker.name}_{temperature:g}K" + (f"_r{replica}" if walker.replicas > 1 else "")
                spec = WalkerSpec(
                    name=name,
                    structure=walker.structure,
                    temperature=temperature,
                    pressure=walker.pressure,
                    steps=walker.steps or config.exploration.steps,
                    seed=walker_seed(config.seed, generation, name),
                )
                specs.append(spec)
    return specs


def find_walker(config: CampaignConfig, name: str, generation: int = 0) -> WalkerSpec:
    """The run of that name, a confirmation (`{walker}_c{k}`) included.

    Raises
    ------
    KeyError
        No walker of the config has this name.
    """
    match = _CONFIRMATION.fullmatch(name)
    base, confirmation = (match["base"], int(match["k"])) if match else (name, 0)
    for spec in base_walkers(config, generation):
        if spec.name == base:
            seed = walker_seed(config.seed, generation, base, confirmation)
            return WalkerSpec(name, spec.structure, spec.temperature, spec.pressure, spec.steps, seed)
    known = ", ".join(spec.name for spec in base_walkers(config))
    raise KeyError(f"no walker is named {name}; the config has {known}")
