"""Tables that tests fill, printed after all tests whatever pytest captures."""

import pytest

Table = list[tuple[str, ...]]
TABLES = pytest.StashKey[dict[str, Table]]()


def open_table(config: pytest.Config, title: str, header: tuple[str, ...]) -> Table:
    """The rows of a table, to append to; the first is its header."""
    return config.stash.setdefault(TABLES, {}).setdefault(title, [header])


def print_tables(config: pytest.Config, reporter: pytest.TerminalReporter) -> None:
    for title, rows in config.stash.get(TABLES, {}).items():
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        reporter.section(title)
        for row in rows:
            line = " | ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True))
            reporter.write_line(line.rstrip())
