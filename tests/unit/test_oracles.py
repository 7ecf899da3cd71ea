"""Other codes by name, and docs/oracles.md taken at its word."""

import re
from pathlib import Path

import pytest
from ase.build import bulk
from ase.calculators.calculator import names
from ase.calculators.morse import MorsePotential

from mlip_auto import oracles
from mlip_auto.check_oracle import find_construction_fault
from mlip_auto.config_dft import Dft
from mlip_auto.labelling import label_structures
from mlip_auto.structures import structure_id

PAGE = (Path(__file__).parents[2] / "docs" / "oracles.md").read_text()


def test_each_code_is_known_to_ase_and_documented():
    assert set(names) >= oracles.ASE_CODES
    assert all(f"`{code}`" in PAGE for code in {*oracles.ORACLES, *oracles.ASE_CODES})


def test_a_new_oracle_in_ten_lines(monkeypatch, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    namespace = vars(oracles).copy()
    exec(code, namespace)
    assert namespace["ORACLES"].keys() - oracles.ORACLES.keys() == {"morse"}
    monkeypatch.setitem(oracles.ORACLES, "morse", namespace["ORACLES"]["morse"])

    dft = Dft(code="morse", parameters={"epsilon": 0.3, "r0": 2.8}, store=tmp_path / "store")
    atoms = bulk("Al", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.info.update(structure_id=structure_id(atoms), generation=0)
    assert find_construction_fault(dft, atoms) is None
    (label,) = label_structures([atoms], dft).labels
    atoms.calc = MorsePotential(epsilon=0.3, r0=2.8)
    assert label.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    assert label.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-12)


@pytest.mark.parametrize("code", ["dftb", "siesta", "vasp", "nwchem", "mopac"])
def test_codes_that_need_no_set_up_are_constructed_from_their_keywords(code):
    assert find_construction_fault(Dft(code=code), bulk("Al")) is None


def test_keywords_reach_the_calculator():
    calculator = oracles.make_calculator(Dft(code="vasp", parameters={"encut": 321.0}), bulk("Al"))
    assert calculator.float_params["encut"] == 321.0
