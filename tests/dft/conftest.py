"""The table of failures, printed after the tests whatever pytest captures."""

import pytest

Row = tuple[str, str, str]
ROWS = pytest.StashKey[list[Row]]()
HEADER: Row = ("what was done", "what happened", "nothing lost")


@pytest.fixture
def table(pytestconfig) -> list[Row]:
    """Rows of (what was done, what happened, nothing lost)."""
    return pytestconfig.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(ROWS, [])
    if rows:
        first, second = (max(len(row[column]) for row in [HEADER, *rows]) for column in range(2))
        terminalreporter.section("real failures of pw.x")
        for done, happened, lost in [HEADER, *rows]:
            terminalreporter.write_line(f"{done:{first}} | {happened:{second}} | {lost}")
