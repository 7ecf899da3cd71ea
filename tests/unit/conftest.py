"""The table of what a cut does to the forces, printed after the tests whatever pytest captures."""

import pytest

LINES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def cut_table(pytestconfig) -> list[str]:
    """Lines of the table."""
    return pytestconfig.stash.setdefault(LINES, [])


def pytest_terminal_summary(terminalreporter, config):
    if lines := config.stash.get(LINES, []):
        terminalreporter.section("force errors of cuts, by EMT: trained atoms in the cut against their frame")
        for line in lines:
            terminalreporter.write_line(line)
