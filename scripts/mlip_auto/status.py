"""Where a campaign stands, from its files and from Slurm's queue: cheap enough to be asked each second."""

import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from mlip_auto.campaign_lock import read_live_owner
from mlip_auto.config import CampaignConfig
from mlip_auto.ledger import read_core_hours
from mlip_auto.live import count_structures, describe_live, read_labelling, read_running_md
from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.progress import say, tabulate_generations
from mlip_auto.slurm import SlurmMissing, SlurmUnreachable, list_jobs, was_used
from mlip_auto.state import Phase, WorkflowManager, find_warnings, read_summaries
from mlip_auto.structures import read_json

RECENT = 3  # generations whose times the estimate is made from
ENDED = (Phase.CONVERGED, Phase.STOPPED)


def collect_status(paths: CampaignPaths, config: CampaignConfig) -> dict[str, Any]:
    """All that `mlip-auto status --json` shows."""
    manager = WorkflowManager(paths, config)
    state = manager.read_state()
    phase = manager.decide_next_step(state)
    generation = state.next_run[0]
    summaries = read_summaries(paths)
    owner = read_live_owner(paths.driver_lock)
    files = paths.generation(generation)
    labels, labelling, running = count_labels(files), read_labelling(files), read_running_md(paths, generation)
    ended = phase in ENDED
    return {
        "name": config.name,
        "generation": generation,
        "phase": phase,
        "pending_tasks": state.pending_tasks,
        "reason": state.reason,
        "confirmations_done": state.confirmations_done,
        "driver": asdict(owner) if owner else None,
        "closing_words": None if owner else _read_closing_words(paths.closing_words),
        "slurm": _read_queue(paths.root),
        "labels": labels,
        "labelling": asdict(labelling) if labelling else None,
        "md": [asdict(md) for md in running],
        "live": describe_live(labelling, running),
        "minutes_left": None if ended or state.decision else estimate_minutes(paths, generation, labels),
        "warnings": find_warnings(summaries),
        "core_hours": round(sum(summary["core_hours"] for summary in summaries), 5),
        "core_hours_dft": read_core_hours(paths),
        "max_core_hours": config.dft.max_core_hours,
        "generations": summaries,
    }


def count_labels(files: GenerationPaths) -> dict[str, int] | None:
    """Structures selected for a label, and how many are done and failed so far; None before there is a selection.

    Shards that are at work count by their ledgers, which hold all but what comes from the store.
    """
    if not files.selected.exists():
        return None
    found = {
        entry["structure_id"]: entry["status"]
        for ledger in files.ledger("0000").parent.glob("*.json")
        for entry in read_json(ledger)
    }
    for record in files.list_shard_records():
        found |= {key: entry["status"] for key, entry in read_json(record)["structures"].items()}
    refused = read_json(files.refused) if files.refused.exists() else {}
    statuses = [*(found | dict.fromkeys(refused, "failed")).values()]
    return {
        "selected": count_structures(files.selected),
        "done": statuses.count("completed"),
        "failed": statuses.count("failed"),
    }


def estimate_minutes(paths: CampaignPaths, generation: int, labels: dict[str, int] | None) -> float | None:
    """Minutes until the generation ends, from its labels so far and from the times of the generations before it.

    None where there is no record to judge from: in generation 0, and before its first label.
    """
    before = [paths.generation(number) for number in range(max(0, generation - RECENT), generation)]
    if not before or not all(files.summary.exists() for files in before):
        return None
    after_labels = median(_minutes_between(files.labels, files.summary) for files in before)
    files, now = paths.generation(generation), time.time()
    if files.labels.exists():
        return round(max(0.0, after_labels - (now - files.labels.stat().st_mtime) / 60), 1)
    if labels and (begun := labels["done"] + labels["failed"]):
        elapsed = (now - files.selected.stat().st_mtime) / 60
        return round(elapsed * (labels["selected"] - begun) / begun + after_labels, 1)
    return round(median(_minutes_between(files.candidates, files.summary) for files in before), 1)


def show_status(status: dict[str, Any], console: Console) -> None:
    """The same for people; the last line says what is going on."""
    if status["generations"]:
        console.print(tabulate_generations(status["generations"]))
    for warning in status["warnings"]:
        say(console, f"warning: {warning}")
    if core_hours := status["core_hours_dft"]:
        by_generation = ", ".join(f"gen {number} {hours:.3g}" for number, hours in core_hours.items())
        limit = f" of {status['max_core_hours']:g}" if status["max_core_hours"] else ""
        say(console, f"DFT paid: {sum(core_hours.values()):.3g}{limit} core-hours ({by_generation}).")
    for line in status["live"]:
        say(console, line)
    if (labels := status["labels"]) and labels["failed"]:
        say(console, f"{labels['failed']} of this generation's labels failed.")
    if (queue := status["slurm"]) is not None:
        rules = "".join(f"; {rule}: {count}" for rule, count in queue.get("rules", {}).items())
        told = queue.get("error") or f"{queue['running']} jobs running, {queue['pending']} pending{rules}"
        say(console, f"Slurm: {told}.")
    if status["closing_words"]:
        say(console, f"The last run said: {status['closing_words']}")
    if status["minutes_left"] is not None:
        say(console, f"About {status['minutes_left']:g} min to the end of this generation, by those before it.")
    waiting = f", waiting for {', '.join(status['pending_tasks'])}" if status["pending_tasks"] else ""
    because = f": {status['reason']}" if status["reason"] else ""
    owner = status["driver"]
    driver = f"run by pid {owner['pid']} on {owner['host']}" if owner else "no driver is running"
    finished = status["phase"] in (Phase.CONVERGED, Phase.STOPPED)
    following = "" if owner else f" Next: `mlip-auto {'export DIR' if finished else 'run'}`."
    where = f"generation {status['generation']}, phase {status['phase']}{because}{waiting}"
    say(console, f"{status['name']}: {where}; {driver}.{following}")


def _read_closing_words(file: Path) -> str | None:
    return file.read_text().strip() if file.exists() else None


def _read_queue(root: Path) -> dict[str, Any] | None:
    """The campaign's jobs in Slurm's queue, by what they do and by rule; None where it never used Slurm."""
    if not was_used(root):
        return None
    try:
        jobs = list_jobs(root)
    except (SlurmMissing, SlurmUnreachable) as error:
        return {"error": str(error)}
    pending = sum(job.pends for job in jobs)
    rules: dict[str, int] = {}
    for job in jobs:
        rules[job.rule] = rules.get(job.rule, 0) + 1
    return {"running": len(jobs) - pending, "pending": pending, "rules": rules}


def _minutes_between(first: Path, last: Path) -> float:
    return (last.stat().st_mtime - first.stat().st_mtime) / 60
