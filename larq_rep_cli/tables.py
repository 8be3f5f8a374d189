"""Tables and numbers as the programs print them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def table(title: str, columns: list[str], rows: Any) -> Table:
    """A table. A column is right-aligned if all its cells begin with a digit."""
    from rich.table import Table

    lines = [[str(cell) for cell in row] for row in rows]
    result = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        numeric = all(len(line) <= i or line[i][:1].isdigit() for line in lines)
        result.add_column(column, justify="right" if numeric else "left")
    for line in lines:
        result.add_row(*line)
    return result


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def times(sizes: Any) -> str:
    return "x".join(map(str, sizes))


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
