"""Tables as Markdown has them."""

from collections.abc import Iterable, Sequence


def lay_out(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table.

    Args:
        heads: Of the columns.
        rows: As many cells in each.
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
