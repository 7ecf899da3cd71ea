"""D-optimal selection: which candidates are worth a label."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from pyace import activelearning
from pyace.basis import BBasisConfiguration

from mlip_auto.ace import (
    ActiveSet,
    build_campaign_basis,
    compute_core_projections,
    count_functions,
    load_active_set,
)
from mlip_auto.config import ENVIRONMENTS_PER_FUNCTION, CampaignConfig
from mlip_auto.structures import is_isolated_atom, read_structures, structure_id
from mlip_auto.training import split_labels


@dataclass(frozen=True)
class CurrentModel:
    """What is known before this selection: the last fit, its active set and the structures it was trained on."""

    generation: int
    active_set: ActiveSet
    training: Sequence[Atoms]


def drop_duplicates(candidates: Sequence[Atoms], known_ids: set[str]) -> list[Atoms]:
    """Candidates whose content id is neither known nor met before; `structure_id` is written into `atoms.info`."""
    seen = set(known_ids)
    unique = []
    for atoms in candidates:
        identifier = structure_id(atoms)
        if identifier not in seen:
            seen.add(identifier)
            atoms.info["structure_id"] = identifier
            unique.append(atoms)
    return unique


def select_structures(
    candidates: Sequence[Atoms],
    basis: BBasisConfiguration,
    max_structures: int,
    current: CurrentModel | None,
    known_ids: set[str],
) -> list[Atoms]:
    """MaxVol over the core environments of the candidates together with those of the training set.

    A candidate is chosen when one of its environments is a row of the joint active set, and from generation 1 on when
    its gamma is above 1 as well: MaxVol finds one of several sets of nearly largest volume, and may exchange rows that
    are known already. Where more than `max_structures` are left, those that own most rows. Generation 0 is filled up
    with candidates that own no row until a fit has enough environments. Isolated atoms come before all others: they
    own no row, and the energies are relative to theirs.

    Parameters
    ----------
    basis
        The last fitted potential, or the unfitted basis in generation 0: projections do not depend on coefficients.
    current
        None in generation 0.
    known_ids
        Content ids already labelled (in this campaign), refused or pending elsewhere.

    Returns
    -------
    Chosen candidates, best first, with `structure_id`, `reason` and (from generation 1 on) `gamma` in `atoms.info`.
    """
    unique = drop_duplicates(candidates, known_ids)
    selected = [atoms for atoms in unique if is_isolated_atom(atoms)][:max_structures]
    for atoms in selected:
        atoms.info["reason"] = "isolated atom: energies are relative to it"
    unique = [atoms for atoms in unique if not is_isolated_atom(atoms)]
    if not unique:
        return selected
    training = list(current.training) if current else []
    projections, owners = compute_core_projections(basis, [*training, *unique])
    joint, active_owners = activelearning.compute_active_set(projections, owners)
    chosen_rows = np.concatenate(list(active_owners.values())).astype(int)
    rows = np.bincount(chosen_rows, minlength=len(training) + len(unique))[len(training) :]
    active_set = current.active_set if current else activelearning.compute_A_active_inverse(joint)
    gammas = np.zeros(len(training) + len(unique))
    for species, grades in activelearning.compute_extrapolation_grade(projections, active_set).items():
        np.maximum.at(gammas, owners[species], grades)
    gammas = gammas[len(training) :]

    new = [index for index in range(len(unique)) if rows[index] > 0 and (gammas[index] > 1 or not current)]
    for index in sorted(new, key=lambda i: (-rows[i], -gammas[i], i))[: max_structures - len(selected)]:
        atoms = unique[index]
        atoms.info["reason"] = f"owns {rows[index]} of {len(chosen_rows)} rows of the joint active set"
        if current:
            atoms.info["gamma"] = float(gammas[index])
            atoms.info["reason"] += f"; gamma {gammas[index]:.2f} against generation {current.generation}"
        selected.append(atoms)
    if current is None:
        spare = sorted((index for index in range(len(unique)) if rows[index] == 0), key=lambda i: (-gammas[i], i))
        fill_up(selected, [unique[index] for index in spare], basis, max_structures)
    return selected


def fill_up(selected: list[Atoms], spare: Sequence[Atoms], basis: BBasisConfiguration, max_structures: int) -> None:
    """Append from `spare` until each element has enough environments for a fit, which needs more than MaxVol does."""
    wanted = {element: ENVIRONMENTS_PER_FUNCTION * count for element, count in count_functions(basis).items()}
    for atoms in spare[: max(0, max_structures - len(selected))]:
        counts = sum((Counter(structure.get_chemical_symbols()) for structure in selected), Counter())
        if all(counts[element] >= number for element, number in wanted.items()):
            return
        atoms.info["reason"] = f"fills up to {ENVIRONMENTS_PER_FUNCTION} environments a function; owns no row"
        selected.append(atoms)


def select_from_files(
    config: CampaignConfig,
    candidates: Sequence[Atoms],
    labels: Sequence[Path],
    potential: Path | None,
    active_set: Path | None,
) -> list[Atoms]:
    """Select with the potential and active set of the last of the generations that `labels` come from.

    In generation 0 there are none of them; the basis is then the unfitted one of the config.
    """
    limit = config.selection.max_structures
    if potential is None or active_set is None:
        return select_structures(candidates, build_campaign_basis(config), limit, None, set())
    known = [atoms for file in labels for atoms in read_structures(file)]
    train, _ = split_labels(known, config.training.held_out_fraction)
    current = CurrentModel(len(labels) - 1, load_active_set(active_set), train)
    known_ids = {atoms.info["structure_id"] for atoms in known}
    return select_structures(candidates, BBasisConfiguration(str(potential)), limit, current, known_ids)
