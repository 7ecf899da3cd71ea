"""A first config from few answers: what `mlip-auto init` writes."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, reference_states
from ase.formula import Formula
from ase.units import kB

from mlip_auto.check_oracle import find_oracle_errors, list_codes
from mlip_auto.config import ENVIRONMENTS_PER_FUNCTION, ConfigError, parse_config
from mlip_auto.distances import find_nearest_distance
from mlip_auto.oracles import GAMMA_ONLY_CODES

TEMPLATE = Path(__file__).with_name("config.yaml.j2")
FUNCTIONS = {1: 100, 2: 120}
"""Basis functions per element by number of elements; more elements take those of two."""
STIFFNESS = 6.0  # eV/Å², a rather soft crystal: its thermal displacements are the larger ones
COMMENT_COLUMN = 33
LIGHT = 10  # atomic numbers below this need a shorter time step
LARGEST_RATTLE = 0.06  # of the nearest distance, each of x, y, z


class NoStart(ValueError):
    """The answers are not enough for a config; the message begins with the flag to give."""


@dataclass(frozen=True)
class Lattice:
    """How a prototype is cut into cells: cutoff in nearest distances, and repeats of the cells that are labelled.

    `first` for generation 0, `box` for cuts (none: whole MD cells of `first` are labelled), `md` for the walkers.
    """

    cutoff: float
    first: tuple[int, int, int]
    box: int | None
    md: tuple[int, int, int]


LATTICES = {
    "fcc": Lattice(1.75, (2, 2, 2), 3, (4, 4, 4)),
    "bcc": Lattice(1.73, (3, 3, 3), 3, (5, 5, 5)),
    "hcp": Lattice(1.70, (4, 4, 3), None, (4, 4, 3)),
    "diamond": Lattice(1.84, (2, 2, 2), 2, (3, 3, 3)),
}
"""Boxes are at least twice the cutoff wide, and hold some hundred atoms at most."""


@dataclass
class Answers:
    """What a user says of a new campaign; temperatures in K, pressure in bar (None: fixed cell), lengths in Å."""

    elements: list[str]
    oracle: str = "emt"
    temperatures: list[float] = field(default_factory=lambda: [300.0, 900.0])
    pressure: float | None = None
    composition: dict[str, float] = field(default_factory=dict)
    prototype: str | None = None
    a: float | None = None
    c: float | None = None
    name: str | None = None


def parse_elements(text: str) -> list[str]:
    """Elements written in any usual way: `Cu,Au`, `Cu Au`, `Cu-Au`.

    Raises
    ------
    NoStart
        One of them is no element.
    """
    elements = text.replace(",", " ").replace("-", " ").split()
    unknown = [element for element in elements if element not in atomic_numbers or element == "X"]
    if unknown or not elements:
        raise NoStart(f"--elements: found {text!r}; give chemical symbols, such as Cu,Au")
    return list(dict.fromkeys(elements))


def parse_composition(text: str, elements: list[str]) -> dict[str, float]:
    """Fractions of a formula such as `Cu3Au`, which must hold exactly the `elements`."""
    try:
        counts = Formula(text).count()
    except ValueError:
        counts = {}
    if set(counts) != set(elements):
        raise NoStart(f"--composition: found {text!r}; give a formula of all of {', '.join(elements)}, such as Cu3Au")
    return {element: counts[element] / sum(counts.values()) for element in elements}


def parse_oracle(text: str) -> str:
    """A name that `dft.code` may have, whatever its case."""
    if text.lower() not in list_codes():
        raise NoStart(f"--oracle: found {text!r}; allowed: {', '.join(list_codes())}")
    return text.lower()


def parse_temperatures(text: str) -> list[float]:
    """Temperatures in K separated by commas or blanks, such as `300,900`."""
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 0:
        raise NoStart(f"--temperatures: found {text!r}; give positive numbers in K, such as 300,900")
    return numbers


def write_config(answers: Answers) -> str:
    """A commented config that passes `check`, with numbers that converge sensibly for one or two elements.

    Raises
    ------
    NoStart
        An element whose lattice ASE does not know, or one with a lattice that has no default here.
    """
    elements = answers.elements
    prototype = answers.prototype or _common_lattice(elements)
    if prototype not in LATTICES:
        found = f"found {prototype!r}" if answers.prototype else f"missing; {elements[0]} has the lattice {prototype!r}"
        raise NoStart(f"--prototype: {found}; init knows {', '.join(LATTICES)}; give one of them")
    lattice = LATTICES[prototype]
    composition = answers.composition or {element: 1 / len(elements) for element in elements}
    lengths = {element: _lattice_constant(element, prototype) for element in elements}
    unknown = [element for element in elements if lengths[element] is None]
    if unknown and answers.a is None:
        raise NoStart(
            f"--a: missing; ASE knows no cubic or hcp crystal of {', '.join(unknown)} to start from; give it in Å"
        )
    # Vegard's law, over crystals of the same atomic volume where an element has another lattice.
    a = answers.a or round(sum(fraction * (lengths[element] or 0) for element, fraction in composition.items()), 3)
    cell = _build_cell(elements[0], prototype, a, answers.c)
    gamma_only = answers.oracle in GAMMA_ONLY_CODES
    first = (lattice.box,) * 3 if gamma_only and lattice.box else lattice.first
    n_atoms = len(cell) * first[0] * first[1] * first[2]
    functions = FUNCTIONS[min(len(elements), 2)]
    wanted = ENVIRONMENTS_PER_FUNCTION * functions
    count, pure = ceil(1.5 * wanted / n_atoms), 0
    if len(elements) > 1:  # what the rarest lacks comes with the pure crystals, and one more for whole atoms
        pure = max(4, *(ceil(wanted / n_atoms - count * fraction) + 1 for fraction in composition.values()))
    nearest = find_nearest_distance(cell)
    rattle = min(sqrt(kB * max(answers.temperatures) / STIFFNESS), LARGEST_RATTLE * nearest / 1.5)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["flow"] = _write_flow
    moments = {element: _read_state(element).get("magmom_per_atom") for element in elements}
    text = environment.from_string(TEMPLATE.read_text()).render(
        answers=answers,
        temperatures=[int(value) if value == int(value) else value for value in answers.temperatures],
        moments={element: moment for element, moment in moments.items() if moment},
        elements=elements,
        name=answers.name or "-".join(elements).lower(),
        composition={element: round(fraction, 8) for element, fraction in composition.items()},
        prototype=prototype,
        a=a,
        # Cells of a Gamma-point oracle have one size: there the pure elements take the lattice of the alloy.
        lengths={element: a if gamma_only else lengths[element] or a for element in elements},
        cutoff=floor(10 * lattice.cutoff * nearest) / 10,
        first=list(first),
        md=list(lattice.md),
        box_side=round(lattice.box * a, 4) if lattice.box else None,
        functions=functions,
        count=count,
        pure=pure,
        total=count + pure * len(elements),
        rattles=[round(factor * rattle, 3) for factor in (0.5, 1.0, 1.5)],
        gamma_only=gamma_only,
        exact=answers.oracle == "emt",
        timestep=1.0 if min(atomic_numbers[element] for element in elements) < LIGHT else 2.0,
    )
    return _align_comments(text)


def find_start_errors(text: str) -> list[str]:
    """What `check` will find in a config of `write_config`, as far as it depends on the answers alone."""
    try:
        config = parse_config(yaml.safe_load(text))
    except ConfigError as error:
        return error.errors
    # pw.x and its pseudopotentials may come later.
    return [] if config.dft.code == "espresso" else find_oracle_errors(config, Path(), None)


def _common_lattice(elements: list[str]) -> str | None:
    """The lattice of most elements in their reference states, of the first among equals; None if ASE has none."""
    lattices = Counter(_read_state(element).get("symmetry") for element in elements)
    return lattices.most_common(1)[0][0]


def _read_state(element: str) -> dict[str, Any]:
    """Lattice and moment of the element's reference state, as ASE knows them."""
    return dict(reference_states[atomic_numbers[element]] or {})


def _lattice_constant(element: str, prototype: str) -> float | None:
    """a (Å) of the prototype at the atomic volume of the element's reference state; None where that is unknown."""
    state = _read_state(element)
    if state.get("symmetry") == prototype:
        return float(state["a"])
    if state.get("symmetry") not in LATTICES:
        return None
    reference = bulk(element, cubic=state["symmetry"] != "hcp")
    unit = _build_cell(element, prototype, 1.0, None)
    return float((reference.get_volume() / len(reference) * len(unit) / unit.get_volume()) ** (1 / 3))


def _build_cell(element: str, prototype: str, a: float, c: float | None) -> Atoms:
    """The conventional cell of the lattice, with ASE's c/a or the ideal one for hcp."""
    return bulk(element, prototype, a=a, c=c, cubic=prototype != "hcp")


def _align_comments(text: str) -> str:
    """Comments behind a key start in one column where there is room."""
    lines = (line.split("  #", 1) for line in text.splitlines())
    return "".join(
        f"{line[0].rstrip():{COMMENT_COLUMN}}  #{line[1]}\n" if line[1:] else f"{line[0]}\n" for line in lines
    )


def _write_flow(value: Any) -> str:
    """A list or mapping as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()
