"""The table of failures of pw.x."""

import pytest

from tables import Table, open_table


@pytest.fixture
def table(pytestconfig) -> Table:
    """Rows of (what was done, what happened, nothing lost)."""
    return open_table(pytestconfig, "real failures of pw.x", ("what was done", "what happened", "nothing lost"))
