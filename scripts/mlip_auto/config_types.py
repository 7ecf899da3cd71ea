"""Types that the sections of the config share."""

from typing import Annotated

from ase.data import chemical_symbols
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

KNOWN_ELEMENTS = frozenset(chemical_symbols[1:])


def _check_element(symbol: str) -> str:
    if symbol not in KNOWN_ELEMENTS:
        raise ValueError(f"{symbol} is not a chemical symbol; write it as in the periodic table, e.g. Si")
    return symbol


def _check_pair(pair: str) -> str:
    elements = pair.split("-")
    if len(elements) != 2:
        raise ValueError(f"{pair!r} is not a pair of elements; write two symbols joined by '-', e.g. Cu-Au")
    for element in elements:
        _check_element(element)
    return "-".join(sorted(elements))


Element = Annotated[str, AfterValidator(_check_element)]
ElementPair = Annotated[str, AfterValidator(_check_pair)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+([-_.]?[A-Za-z0-9]+)*$", max_length=60)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
