"""Text for people to read, in one line."""

LINE_SIZE = 500
"""Most characters of a line that the results service keeps."""


def one_line(text: str, size: int | None = LINE_SIZE) -> str:
    """Text as a line of at most so many characters, all of which can be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:size]
