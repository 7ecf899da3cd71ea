"""The potential of a campaign in a folder of its own, with its data and a card that says what it is good for."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ase import Atoms
from pyace.basis import BBasisConfiguration

from mlip_auto.chemiscope_file import write_chemiscope
from mlip_auto.config import CampaignConfig
from mlip_auto.config_exploration import WalkerStructure
from mlip_auto.oracles import describe_settings
from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.state import Decision, WorkflowManager, read_summaries
from mlip_auto.structures import is_isolated_atom, read_json, read_structures
from mlip_auto.walkers import find_walker

TEMPLATE = Path(__file__).with_name("card.md.j2")


class ExportRefused(RuntimeError):
    """There is no potential to export, or none that was asked for; the message says how to go on."""


def export_potential(
    paths: CampaignPaths, config: CampaignConfig, configfile: Path, target: Path, unfinished: bool = False
) -> int:
    """Write the potential of the last finished generation to the folder `target`, which appears whole or not at all.

    potential.yace, .yaml and .asi, training_set.extxyz and .json.gz (for chemiscope), metrics.json, config.yaml and the
    card README.md.

    Parameters
    ----------
    unfinished
        Export the potential of a campaign that has not converged too; its card says so first.

    Returns
    -------
    The generation.

    Raises
    ------
    ExportRefused
        No generation is finished, the campaign has not converged, or `target` exists.
    """
    summaries = read_summaries(paths)
    if not summaries:
        raise ExportRefused(f"{paths.results} holds no finished generation yet; next: `mlip-auto run`")
    state = WorkflowManager(paths, config).read_state()
    converged = state.decision is Decision.CONVERGED
    if not converged and not unfinished:
        because = f" ({state.reason})" if state.reason else ""
        raise ExportRefused(
            f"{config.name} has not converged{because}; `mlip-auto run` goes on, or export its potential as it is with "
            "--unfinished"
        )
    if target.exists():
        raise ExportRefused(f"{target} exists already; name another folder")
    summary = summaries[-1]
    files = paths.generation(summary["generation"])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        folder = Path(aside) / target.name
        folder.mkdir()
        for file in (files.potential_yace, files.potential, files.active_set, files.metrics):
            shutil.copyfile(file, folder / file.name)
        shutil.copyfile(files.predictions, folder / "training_set.extxyz")
        labels, basis = read_structures(files.predictions), BBasisConfiguration(str(files.potential))
        write_chemiscope(folder / "training_set.json.gz", labels, basis, config.name)
        shutil.copyfile(configfile, folder / "config.yaml")
        reason = "" if converged else state.reason
        (folder / "README.md").write_text(write_card(config, summary, files, converged, reason))
        folder.replace(target)
    return int(summary["generation"])


def write_card(
    config: CampaignConfig, summary: dict[str, Any], files: GenerationPaths, converged: bool, reason: str
) -> str:
    """The card of a generation's potential, in Markdown; `reason` says why the campaign stopped."""
    metrics = read_json(files.metrics)
    labels = read_structures(files.predictions)
    rmse = metrics["rmse"]
    errors = {"training": rmse["train"], "held out": rmse["held_out"]}
    errors |= {f"true, {walker}": error for walker, error in (rmse["true"] or {}).items()}
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text()).render(
        config=config,
        converged=converged,
        reason=reason,
        generation=summary["generation"],
        summary=summary,
        starts={name: _describe_start(find_walker(config, name).structure) for name in summary["walkers"]},
        metrics=metrics,
        elements=" ".join(config.system.elements),
        errors={name: error for name, error in errors.items() if error is not None},
        free_atoms=sorted({atoms.symbols[0] for atoms in labels if is_isolated_atom(atoms)}),
        n_atoms=sum(map(len, labels)),
        kinds=_count(labels, "config_type"),
        code_versions=_count(labels, "code_version"),
        settings=yaml.safe_dump(describe_settings(config.dft), sort_keys=False, allow_unicode=True),
        functions=", ".join(f"{number} for {element}" for element, number in metrics["functions"].items()),
    )


def _describe_start(source: WalkerStructure) -> str:
    """Such as `fcc Al, 3x3x3`; of a file its name alone."""
    if source.data_set:
        what = "a labelled structure"
    else:
        what = source.file.name if source.file else " ".join(filter(None, (source.prototype, source.formula)))
    mixed = [f"{fraction:g} {element}" for element, fraction in source.composition.items()]
    repeats = [] if max(source.supercell) == 1 else ["x".join(map(str, source.supercell))]
    return ", ".join([what, *mixed, *repeats])


def _count(labels: list[Atoms], key: str) -> dict[str, int]:
    return dict(sorted(Counter(str(atoms.info[key]) for atoms in labels if key in atoms.info).items()))
