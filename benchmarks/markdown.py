"""Markdown tables."""

from collections.abc import Iterable, Sequence


def lay_out(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table.

    Args:
        heads: Heads of the columns.
        rows: Cells of each row, one for each column.
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
