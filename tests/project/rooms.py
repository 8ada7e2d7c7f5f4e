"""Import structure of the folders: ``python -m tests.project.rooms [REVISION]``.

A room is a folder that has Python files. An arrow means that a file of a room imports
from another room. A room's floor is the length of the longest path of arrows from it.
``__main__.py`` is not part of its room. The program prints the numbers of these for
each package, now or in a git revision; then every arrow with its number of imports.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
PACKAGES = ("chirpwatch", "api", "export", "serve", "streamer", "train", "commands")
PREFIX = "chirpwatch."
"""Prefix of imports: each other package is imported as part of ``chirpwatch``."""

Arrows = Counter[tuple[str, str]]


def sources(revision: str | None = None) -> dict[str, str]:
    """Text of the packages' Python files, by path from the root."""
    git = ("git", "-C", str(ROOT))
    if revision is None:
        listed = _output(*git, "ls-files", "--", *PACKAGES)
        return {path: (ROOT / path).read_text() for path in _python(listed)}
    listed = _output(*git, "ls-tree", "-r", "--name-only", revision, "--", *PACKAGES)
    return {
        path: _output(*git, "show", f"{revision}:{path}") for path in _python(listed)
    }


def _python(listed: str) -> list[str]:
    return [
        path
        for path in listed.splitlines()
        if path.endswith(".py") and not path.endswith("__main__.py")
    ]


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def imported(text: str) -> Iterator[str]:
    """Dotted names of a file's imports, also within functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def file_of(name: str, files: Iterable[str]) -> str | None:
    """File of an imported name, if it is one of ours."""
    parts = name.removeprefix(PREFIX).split(".")
    if not name.startswith(PREFIX) and parts[0] not in PACKAGES:
        # The standard library has a `statistics`, too.
        return None
    for count in range(len(parts), 0, -1):
        path = "/".join(parts[:count])
        for found in (f"{path}.py", f"{path}/__init__.py", f"chirpwatch/{path}.py"):
            if found in files:
                return found
    return None


def arrows(files: Mapping[str, str]) -> Arrows:
    """Number of imports from each room to each other room."""
    found: Arrows = Counter()
    for path, text in files.items():
        here = str(PurePosixPath(path).parent)
        for name in imported(text):
            file = file_of(name, files)
            there = None if file is None else str(PurePosixPath(file).parent)
            if there is not None and there != here:
                found[here, there] += 1
    return found


def floors(found: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Length of the longest path of arrows from each room.

    Raises:
        CycleError: Rooms have circular imports.
    """
    below: dict[str, set[str]] = {}
    for here, there in found:
        below.setdefault(here, set()).add(there)
    heights: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        heights[room] = 1 + max(
            (heights[lower] for lower in below.get(room, ())), default=0
        )
    return heights


def main(revision: str | None) -> None:
    """Print the structure."""
    files = sources(revision)
    found = arrows(files)
    for package in PACKAGES:
        rooms = {
            str(PurePosixPath(path).parent)
            for path in files
            if path.split("/")[0] == package
        }
        inside = [pair for pair in found if set(pair) <= rooms]
        count = sum(path.split("/")[0] == package for path in files)
        print(f"{package}: {count} files, {len(rooms)} rooms, {len(inside)} arrows")
    try:
        heights = floors(found)
    except CycleError as error:
        heights = {}
        print(f"no floors, imports in a circle: {' -> '.join(error.args[1])}")
    for room in sorted(heights, key=lambda name: (heights[name], name)):
        print(f"floor {heights[room]}: {room}")
    for (here, there), count in sorted(found.items()):
        print(f"{here} -> {there}: {count}")


if __name__ == "__main__":
    main(*sys.argv[1:] or [None])
