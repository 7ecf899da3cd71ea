"""The verdict on a campaign in a few sentences: what is wrong first, then errors, cost and what to do next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlip_auto.scf_failures import Reason
from mlip_auto.state import Decision

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """`tone` is good (converged), bad (stopped, or something is broken) or open (under way)."""

    tone: Literal["good", "bad", "open"]
    headline: str
    details: tuple[str, ...] = ()


def judge(summaries: Sequence[Summary], generation: int, failures: Sequence[str] = (), broken: str = "") -> Verdict:
    """The verdict on a campaign.

    Parameters
    ----------
    generation
        The last generation with files, finished or not.
    failures
        Reason of each label of the campaign that failed, `class: message`.
    broken
        The error that ended the run, empty when none did.
    """
    trouble = _describe_failures(failures)
    if broken:
        first, *rest = [line.strip() for line in broken.splitlines() if line.strip()]
        details = [*rest, *trouble]
        if summaries:
            details += _describe_standing(summaries)
        return Verdict("bad", f"Broken in generation {generation}: {first}", tuple(details))
    if not summaries:
        return Verdict("open", "Running: generation 0 is not finished.", tuple(trouble))
    latest = summaries[-1]
    number = latest["generation"]
    crashed = _name_walkers(latest, "crashed")
    halted = _name_walkers(latest, "halted")
    details = [f"MD of {name} crashed: {latest['walkers'][name]['reason']}." for name in crashed]
    details += [*trouble, *_describe_standing(summaries)]
    if generation > number:
        details.append(f"Generation {generation} is under way.")
    lost = f"{len(failures)} labels failed" if len(failures) > 1 else "1 label failed"
    match Decision(latest["decision"]):
        case Decision.CONVERGED:
            although = f", although {lost}" if failures else ""
            headline = (
                f"Converged in generation {number}{although}: MD ran without halting{_describe_conditions(latest)}."
            )
            details.append("Next: mlip-auto export DIR, which writes the potential with its card.")
            return Verdict("good", headline, tuple(details))
        case Decision.STOPPED:
            headline = f"Not converged. Stopped in generation {number}: {latest['reason']}."
            details.append("Next: change the config where the reason says so; mlip-auto run then goes on.")
        case Decision.CONFIRM:
            headline = (
                f"Not converged yet: MD of generation {number} ran without halting, its confirmations are to come."
            )
        case Decision.CONTINUE:
            late = ", ".join(_name_walkers(latest, "out_of_time"))
            headline = f"Not converged yet: MD of {late} ran out of time in generation {number} and goes on."
        case Decision.NEXT_GENERATION:
            what = [f"{name} halted" for name in halted] + [f"{name} crashed" for name in crashed]
            headline = (
                f"Not converged yet: in generation {number} MD of {', '.join(what)}; generation {number + 1} learns "
                "from it."
            )
    wrong = [f"MD of {', '.join(crashed)} crashed"] if crashed else []
    wrong += [lost] if failures else []
    stopped = latest["decision"] == Decision.STOPPED
    if wrong:
        headline = f"{_capitalise('; '.join(wrong))}. {headline}"
    return Verdict("bad" if wrong or stopped else "open", headline, tuple(details))


def find_worst_true(summary: Summary, quantity: str) -> float | None:
    """Largest true RMSE over the target conditions (eV/atom or eV/Å); None where there is no reference."""
    return max((error[quantity] for error in (summary["rmse"]["true"] or {}).values()), default=None)


def get_failure_class(reason: str) -> str:
    """`not converged` of `not_converged: convergence NOT achieved after 100 iterations`; outliers carry no class."""
    name = reason.partition(":")[0]
    return name.replace("_", " ") if name in {*Reason, "flagged"} else "outlier"


def _describe_failures(failures: Sequence[str]) -> list[str]:
    if not failures:
        return []
    classes = Counter(get_failure_class(reason) for reason in failures)
    listed = ", ".join(f"{name} ({count})" for name, count in classes.most_common())
    return [f"Labels that failed: {len(failures)}, by reason: {listed}."]


def _name_walkers(summary: Summary, outcome: str) -> list[str]:
    return [name for name, walker in summary["walkers"].items() if walker["outcome"] == outcome]


def _describe_standing(summaries: Sequence[Summary]) -> list[str]:
    return [_describe_error(summaries[-1]), _describe_cost(summaries)]


def _describe_conditions(summary: Summary) -> str:
    walkers = summary["walkers"].values()
    temperatures = sorted({walker["temperature"] for walker in walkers if _is_at_one_temperature(walker)})
    varied = dict.fromkeys(walker["conditions"] for walker in walkers if not _is_at_one_temperature(walker))
    conditions = [f"{' and '.join(f'{temperature:g}' for temperature in temperatures)} K"] if temperatures else []
    times = [walker["time_ps"] for walker in walkers]
    length = f"{min(times):.3g}" + (f" to {max(times):.3g}" if max(times) > min(times) else "")
    text = f" at {' and at '.join([*conditions, *(f'({words})' for words in varied)])}, {length} ps each"
    confirmations = summary["confirmations_done"]
    if confirmations:
        text += f", and {confirmations} fresh velocity seed{'s' * (confirmations > 1)} ran clean too"
    return text


def _is_at_one_temperature(walker: Mapping[str, Any]) -> bool:
    """Whether its temperature says what a run was under: no ramp, no stages, no deformation."""
    temperature, _, rest = walker["conditions"].partition(", ")
    return temperature == f"{walker['temperature']:g} K" and "; then" not in rest and "deformed" not in rest


def _describe_error(summary: Summary) -> str:
    errors = summary["rmse"]
    if errors["true"]:
        walker, error = max(errors["true"].items(), key=lambda item: item[1]["force"])
        kind = f"True error against MD of the oracle, worst at {walker}"
    elif errors["held_out"]:
        kind, error = "Error on held-out labels", errors["held_out"]
    else:
        kind, error = "Error on the training labels (nothing is held out)", errors["train"]
    energy = "" if error["energy"] is None else f", energy {1000 * error['energy']:.3g} meV/atom"
    return f"{kind}: force {1000 * error['force']:.3g} meV/Å{energy}."


def _describe_cost(summaries: Sequence[Summary]) -> str:
    labels, failed, minutes, hours = (
        sum(summary[key] for summary in summaries) for key in ("labelled", "failed", "minutes", "core_hours")
    )
    generations = len(summaries)
    failures = f" ({failed} more failed)" if failed else ""
    return (
        f"{labels} labels{failures} in {generations} generation{'s' * (generations > 1)}, "
        f"{minutes:.1f} minutes, {f'{hours:.3g} core-hours' if hours >= 1 else f'{60 * hours:.2g} core-minutes'}."
    )


def _capitalise(text: str) -> str:
    return text[0].upper() + text[1:]
