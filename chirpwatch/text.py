"""Text in one line, such as the message of a run."""

LINE_SIZE = 500
"""Most characters of a line that the results service keeps."""


def one_line(text: str, size: int | None = LINE_SIZE) -> str:
    """Reduce text to one line of printable characters, at most ``size`` of them."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:size]
