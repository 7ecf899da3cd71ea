"""What each way of cutting costs, and how good the potential gets: `python benchmarks/cutting.py al` (or `cuau`).

Whole campaigns by EMT, from zero data until MD at the target temperature and two confirmations run clean, three seeds a
variant. They run in this process by the functions of the workflow's rules, in the rules' order, without Snakemake. Each
finished campaign is kept in results/cutting_{material}.json, so that the benchmark can be run in pieces; the table goes
to results/cutting_{material}.md. About 2 CPU minutes a campaign.

Mode `auto` cuts boxes here, as `box` would: the frames have 500 atoms. `... in active set`: buffer atoms are wrongly
let into the active set and the selection, to show what the mask buys. `..., halt at 3`: MD halts at gamma 3, not 5.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from ase import Atoms

from mlip_auto import ace, structures
from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.exploration import extract_generation, run_walker
from mlip_auto.fit_potential import fit_potential
from mlip_auto.initial import generate_candidates
from mlip_auto.labelling import label_structures
from mlip_auto.paths import CampaignPaths
from mlip_auto.reference import make_reference
from mlip_auto.selection import select_from_files
from mlip_auto.structures import read_json, write_atomically, write_json, write_structures
from mlip_auto.walkers import base_walkers, confirmation_name

RESULTS = Path(__file__).parent / "results"
SEEDS = (1, 2, 3)
REFERENCE_SEED = 0  # its velocities, and the sites of its alloy, are those of no campaign
BASIS = {"nradmax_by_orders": [12, 5, 3, 2], "lmax_by_orders": [0, 4, 3, 1], "cutoff": 5.0}
MATERIALS: dict[str, dict[str, Any]] = {
    "al": {"elements": ["Al"], "crystal": {"prototype": "fcc", "a": 4.05}, "functions": 100, "target": 900},
    "cuau": {
        "elements": ["Au", "Cu"],
        "crystal": {"prototype": "fcc", "formula": "Cu", "a": 3.9, "composition": {"Cu": 0.5, "Au": 0.5}},
        "functions": 70,
        "target": 800,
    },
}
VARIANTS: dict[str, dict[str, Any]] = {
    "cell": {"mode": "cell", "max_clusters": 1, "max_atoms": 500},  # the frame that halted, whole: the baseline
    "auto": {"mode": "auto"},
    "auto, 5 cuts a walker": {"mode": "auto", "max_clusters": 5},
    "box, trained on to the cutoff": {"mode": "box", "trained_radius": 5.0, "max_clusters": 5},
    "box, buffer in active set": {"mode": "box", "trained_radius": 5.0, "max_clusters": 5},
    "cluster": {"mode": "cluster", "max_atoms": 400, "max_clusters": 5},
    "cluster, buffer in active set": {"mode": "cluster", "max_atoms": 400, "max_clusters": 5},
    "cell, halt at 3": {"mode": "cell", "max_clusters": 1, "max_atoms": 500},
    "auto, 5 cuts a walker, halt at 3": {"mode": "auto", "max_clusters": 5},
}
MASK_OFF = "buffer in active set"


def make_config(material: str, variant: str, seed: int) -> CampaignConfig:
    settings = MATERIALS[material]
    crystal = settings["crystal"]
    return parse_config(
        {
            "name": f"{material}-{seed}",
            "seed": seed,
            "system": {"elements": settings["elements"]},
            "initial": {
                "structures": [
                    {**crystal, "supercell": [2, 2, 2], "count": 24, "rattles": [0.1], "strain": 0.03, "shear": 0.03}
                ]
            },
            "dft": {"code": "emt"},
            "training": {
                "solver": "linear",
                "basis": {**BASIS, "number_of_functions_per_element": settings["functions"]},
                "repulsion": "none",
                "held_out_fraction": 0.0,
            },
            "exploration": {
                "timestep": 2.0,
                "steps": 500,
                "uncertainty_threshold": 3.0 if "halt at 3" in variant else 5.0,
                "walkers": [{"structure": {**crystal, "supercell": [5, 5, 5]}, "temperatures": [settings["target"]]}],
            },
            "extraction": VARIANTS[variant],
            "validation": {"reference_md": {"steps": 300, "every": 30}},
        }
    )


def run_campaign(config: CampaignConfig, folder: Path, reference: Path | None) -> dict[str, Any]:
    """Run generations until nothing halts, or until nothing new is learnt; the row of the table.

    Files lie in `folder` as in any campaign. `reference`: MD frames of the oracle, for the true error.
    """
    paths = CampaignPaths(folder)
    dft = config.dft.in_folder(folder)
    labels: list[Atoms] = []
    cuts = generate_candidates(config)
    for generation in range(config.loop.max_generations):
        files, done = paths.generation(generation), [paths.generation(number) for number in range(generation)]
        potential, active_set = (done[-1].potential, done[-1].active_set) if done else (None, None)
        selected = select_from_files(
            config,
            cuts,
            labels=[one.labels for one in done],
            potential=potential,
            active_set=active_set,
        )
        if not selected:
            decision = "stopped: nothing new was cut"
            break
        new = label_structures(selected, dft, paths.work(generation, "dft")).labels
        labels += new
        write_structures(files.labels, new)
        metrics = fit_potential(
            config,
            generation=generation,
            labels=[one.labels for one in (*done, files)],
            previous=potential,
            previous_active_set=active_set,
            reference=[reference] if reference else [],
            scratch=paths.work(generation, "training"),
            output=files,
            threads=1,
        )
        cuts, clean = explore(config, generation, paths)
        error = metrics["rmse"]["true"][reference.stem] if reference else metrics["rmse"]["train"]
        print(f"  generation {generation}: {len(new)} labels, F {1e3 * error['force']:.1f} meV/Å", flush=True)
        if not cuts:
            decision = "converged" if clean else "stopped: nothing could be cut"
            break
    else:
        decision = "stopped: loop.max_generations"
    sizes = np.array([len(atoms) for atoms in labels])
    return {
        "decision": decision,
        "generations": generation + 1,
        "labels": len(labels),
        "atoms": int(sizes.sum()),
        "cost": float(((sizes / 100) ** 3).sum()),
        "force": 1e3 * error["force"],
        "energy": 1e3 * error["energy"],
    }


def explore(config: CampaignConfig, generation: int, paths: CampaignPaths) -> tuple[list[Atoms], bool]:
    """Cuts from the first MD run of the walkers, or the first confirmation, in which some halted; whether none did."""
    files = paths.generation(generation)
    for confirmation in range(config.loop.confirmations + 1):
        walkers, clean = {}, True
        for spec in base_walkers(config, generation):
            name = confirmation_name(spec.name, confirmation) if confirmation else spec.name
            walkers[name] = files.walker(name)
            scratch = paths.work(generation, f"md/{name}")
            fit = files.potential, files.active_set
            outcome = run_walker(config, generation, name, *fit, [files.labels], walkers[name], scratch)
            clean = clean and outcome["outcome"] == "completed"
            print(f"    {name}: {outcome['outcome']} at step {outcome['step']}", flush=True)
        cuts, refusals = extract_generation(config, generation, walkers, files.potential, files.active_set)
        write_structures(files.extracted, cuts)
        for refusal in refusals:
            print(f"    not cut: {refusal}", flush=True)
        if not clean:
            return cuts, False
    return [], True


def let_buffer_in(atoms: Atoms) -> np.ndarray:
    """In place of the mask that decides which atoms of a candidate or a label may become rows of the active set."""
    if "structure_id" in atoms.info:
        return np.ones(len(atoms), dtype=bool)
    return structures.get_force_mask(atoms)


def make_reference_file(material: str, folder: Path) -> Path:
    """EMT's own MD at the target temperature, of the size of the walkers' cells; made once a material."""
    config = make_config(material, "cell", REFERENCE_SEED)
    walker = base_walkers(config)[-1].name
    path = folder / f"{walker}.extxyz"
    if not path.exists():
        write_structures(path, make_reference(config, walker, folder))
    return path


def tabulate(rows: dict[str, dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds (one seed: its value), as markdown."""
    columns = {
        "generations": ("generations", 1),
        "labels": ("labels", 1),
        "atoms": ("atoms labelled", 0),
        "cost": ("sum of (N/100)³", 1),
        "force": ("true force RMSE, meV/Å", 2),
        "energy": ("true energy RMSE, meV/atom", 2),
    }
    lines = [
        f"| cut | converged | {' | '.join(title for title, _ in columns.values())} |",
        f"|---{'|---' * (len(columns) + 1)}|",
    ]
    for variant in VARIANTS:
        of_variant = [row for row in rows.values() if row["variant"] == variant]
        if not of_variant:
            continue
        converged = sum(row["decision"] == "converged" for row in of_variant)
        cells = []
        for key, (_, digits) in columns.items():
            values = [row[key] for row in of_variant]
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.{digits}f}{spread}")
        lines.append(f"| {variant} | {converged} of {len(of_variant)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("material", choices=MATERIALS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--again", action="store_true", help="also campaigns that are in the results already")
    arguments = parser.parse_args()
    kept = RESULTS / f"cutting_{arguments.material}.json"
    with tempfile.TemporaryDirectory() as folder:
        reference = make_reference_file(arguments.material, Path(folder))
        for seed in arguments.seeds:
            for variant in arguments.variants:
                rows = read_json(kept) if kept.exists() else {}
                name = f"{variant}, seed {seed}"
                if name in rows and not arguments.again:
                    continue
                print(f"{arguments.material}, {name}", flush=True)
                ace.get_force_mask = let_buffer_in if MASK_OFF in variant else structures.get_force_mask
                config = make_config(arguments.material, variant, seed)
                with tempfile.TemporaryDirectory(dir=folder) as campaign:
                    row = run_campaign(config, Path(campaign), reference)
                write_json(kept, rows | {name: {"variant": variant, "seed": seed, **row}})
    table = tabulate(read_json(kept))
    with write_atomically(kept.with_suffix(".md")) as aside:
        aside.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
