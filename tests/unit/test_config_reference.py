"""config/README.md says what the models say."""

import re

from mlip_auto.config import CampaignConfig
from mlip_auto.config_reference import REFERENCE, render_reference


def test_the_page_has_not_drifted_from_the_models():
    assert REFERENCE.read_text() == render_reference(), "run: python -m mlip_auto.config_reference"


def test_every_key_of_every_section_has_a_row():
    page = render_reference()
    schema = CampaignConfig.model_json_schema()
    for section in [schema, *schema["$defs"].values()]:
        for key in section["properties"]:
            assert f"| `{key}` | " in page, key


def test_every_row_has_four_cells():
    rows = [row for row in render_reference().splitlines() if row.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_types_limits_and_defaults_are_in_the_users_words():
    rows = render_reference().splitlines()
    assert any(row.startswith("| `temperature` | number > 0 or list of 2 numbers | required | ") for row in rows)
    assert any(row.startswith("| `strain` | number ≥ 0, < 0.5 | `0.03` | ") for row in rows)
    assert any(row.startswith("| `solver` | `pacemaker`, `linear` | `pacemaker` | ") for row in rows)
    assert any(row.startswith("| `max_wait` | number > 0 | none | ") for row in rows)
    assert any(row.startswith("| `supercell` | list of 3 integers | `[1, 1, 1]` | ") for row in rows)
