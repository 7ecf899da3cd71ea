"""Which atoms of which frames are worth a cut: candidates of all walkers, chosen by D-optimality."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlip_auto.ace import compute_core_projections
from mlip_auto.cutting import ParentFrame
from mlip_auto.fitted_potential import FittedPotential

CANDIDATES_PER_CUT = (
    10  # of a walker for each cut wanted: an exploded frame has thousands of centres, all of them refused
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """An atom worth a cut; `halting` for the atom of largest gamma in the last frame, which ended the run."""

    walker: str
    frame: ParentFrame
    atom: int
    halting: bool

    @property
    def gamma(self) -> float:
        return float(self.frame.atoms.arrays["gamma"][self.atom])

    @property
    def step(self) -> int:
        return int(self.frame.atoms.info["step"])


def list_candidates(
    walker: str,
    frames: Sequence[ParentFrame],
    gamma_select: float,
    cutoff: float,
    limit: int,
    one_per_frame: bool = False,
) -> list[Candidate]:
    """At most `limit` candidates of a walker: its halting atom, then atoms above `gamma_select` by falling gamma.

    Atoms within `cutoff` (Å) of a candidate in the same frame are left out: its cut has them. `frames` are in the order
    of time.
    """
    gammas = np.concatenate([frame.atoms.arrays["gamma"] for frame in frames])
    numbers = np.repeat(np.arange(len(frames)), [len(frame.atoms) for frame in frames])
    first = np.searchsorted(numbers, np.arange(len(frames)))
    halting = int(first[-1] + np.argmax(gammas[first[-1] :]))
    above = np.flatnonzero(gammas > gamma_select)
    found: list[Candidate] = []
    taken: list[list[int]] = [[] for _ in frames]
    for entry in (halting, *above[np.argsort(-gammas[above], kind="stable")]):
        number = int(numbers[entry])
        atom, others, atoms = int(entry - first[number]), taken[number], frames[number].atoms
        if others and (one_per_frame or atoms.get_distances(atom, others, mic=True).min() < cutoff):
            continue
        others.append(atom)
        found.append(Candidate(walker, frames[number], atom, halting=not found))
        if len(found) == limit:
            break
    return found


class CentreChooser:
    """D-optimal choice among the candidates of all walkers, one at a time.

    Each walker's halting atom comes first. Then always the candidate of largest gamma against the active set into
    which the ones before were exchanged (a step of MaxVol), as long as that is above `gamma_select`. With active set A
    and projections b, c = b A⁻¹ and k the largest |c|, row k of A becomes b:
    A'⁻¹ = A⁻¹ - (A⁻¹ e_k)(c - e_k) / c_k (Sherman and Morrison).

    Parameters
    ----------
    per_walker
        Centres taken from one walker at most.
    min_distance
        Candidates are the same question when max |c - c'| is less than this share of the larger gamma.

    Attributes
    ----------
    active_set
        Inverse by species index, with the accepted centres in it.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        potential: FittedPotential,
        gamma_select: float,
        per_walker: int,
        min_distance: float,
    ):
        self._left = list(candidates)
        self._gamma_select = gamma_select
        self._per_walker = per_walker
        self._min_distance = min_distance
        self._taken: Counter[str] = Counter()
        self.active_set = dict(potential.active_set)
        self._rows = project_centres(candidates, potential)
        self._coordinates = {one: row @ self.active_set[species] for one, (species, row) in self._rows.items()}

    def best(self) -> Candidate | None:
        """The next centre to try, None when no other is worth a cut; `accept` or `drop` it before asking again."""
        self._left = [one for one in self._left if self._taken[one.walker] < self._per_walker]
        if not self._left:
            return None
        halting = next((one for one in self._left if one.halting), None)
        if halting:
            return halting
        grades = [self._grade(one) for one in self._left]
        best = int(np.argmax(grades))
        return self._left[best] if grades[best] > self._gamma_select else None

    def drop(self, candidate: Candidate) -> None:
        """It could not be cut."""
        self._left.remove(candidate)

    def accept(self, candidate: Candidate) -> None:
        """It was cut: it becomes known, and what is nearly the same is left out."""
        self._taken[candidate.walker] += 1
        species, row = self._rows[candidate]
        inverse = self.active_set[species]
        coordinates = row @ inverse
        k = int(np.argmax(np.abs(coordinates)))
        unit = np.zeros(len(coordinates))
        unit[k] = 1
        self.active_set[species] = inverse - np.outer(inverse[:, k], coordinates - unit) / coordinates[k]
        self._left = [
            one for one in self._left if one is not candidate and not self._are_alike(one, candidate, species)
        ]

    def _grade(self, candidate: Candidate) -> float:
        species, row = self._rows[candidate]
        return float(np.abs(row @ self.active_set[species]).max())

    def _are_alike(self, one: Candidate, other: Candidate, species: int) -> bool:
        if self._rows[one][0] != species:
            return False
        a, b = self._coordinates[one], self._coordinates[other]
        return bool(np.abs(a - b).max() < self._min_distance * max(np.abs(a).max(), np.abs(b).max()))


def project_centres(
    candidates: Sequence[Candidate], potential: FittedPotential
) -> dict[Candidate, tuple[int, np.ndarray]]:
    """Species index and basis projections, shape=(n_functions,), of each candidate's atom."""
    if not candidates:
        return {}
    surroundings = []
    for candidate in candidates:
        atoms = candidate.frame.surroundings(candidate.atom, potential.cutoff)
        atoms.set_array("force_mask", (np.arange(len(atoms)) == 0).astype(int))
        surroundings.append(atoms)
    projections, owners = compute_core_projections(potential.configuration, surroundings)
    return {
        candidates[owner]: (species, row)
        for species, rows in projections.items()
        for owner, row in zip(owners[species], rows, strict=True)
    }
