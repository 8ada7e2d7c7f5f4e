"""The documentation's pages, as the tests read them: fenced blocks and commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:chirpwatch|make|pytest|python|docker|pip) [^`]+)`")
SEPARATORS = "();|&<>\n"


@dataclass(frozen=True)
class Fenced:
    """A fenced block of a page.

    Attributes:
        page: Path of the page, from the repository's root.
        language: Language that is named after the fence.
        text: Content of the block.
    """

    page: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A simple command, without redirections.

    Attributes:
        page: Path of the page.
        words: The command's words, the program first.
        whole: Whether it is complete, to be typed, and not just named in a text.
    """

    page: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(*languages: str) -> list[Fenced]:
    """Fenced blocks of all pages, optionally of some languages only."""
    found = []
    for path in PAGES:
        for indent, language, text in FENCE.findall(path.read_text()):
            if not languages or language in languages:
                lines = [line.removeprefix(indent) for line in text.splitlines()]
                page = str(path.relative_to(ROOT))
                found.append(Fenced(page, language, "\n".join(lines) + "\n"))
    return found


def commands() -> list[Command]:
    """Commands of all pages: in shell blocks, and named in the text."""
    found = [
        Command(block.page, words, "…" not in words)
        for block in blocks("sh")
        for words in _simple(block.text)
    ]
    for path in PAGES:
        page = str(path.relative_to(ROOT))
        text = FENCE.sub("", path.read_text())
        for code in INLINE.findall(text):
            found += [
                Command(page, words, False) for words in _simple(" ".join(code.split()))
            ]
    return found


def _simple(text: str) -> Iterator[tuple[str, ...]]:
    """Simple commands of a shell script, without assignments before them."""
    text = re.sub(r"(^|\s)#\s.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=SEPARATORS)
    lexer.commenters = ""
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(SEPARATORS).issuperset(word):
            words.append(word)
            continue
        while words and re.match(r"\w+=", words[0]):
            del words[0]
        if words:
            yield tuple(words)
        words = []
