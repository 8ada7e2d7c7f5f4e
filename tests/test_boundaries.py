"""Who may import whom, and who must not need torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each package with those it may import; chirpwatch itself is below them all, but for
# its commands, which stand above.
ALLOWED = {
    "chirpwatch": set(),
    "train": set(),
    "export": {"train"},
    "serve": set(),
    "streamer": {"api", "serve"},
    "api": set(),
}
COMMANDS = {"chirpwatch/demo.py": {"streamer", "train"}}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        allowed = ALLOWED[package] | COMMANDS.get(str(path.relative_to(ROOT)), set())
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                other = name.split(".")[0]
                if other in ALLOWED and other not in {package, "chirpwatch"}:
                    assert other in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "command",
    [
        "fetch",
        "simulate",
        "train",
        "export",
        "serve",
        "replay",
        "background",
        "live",
        "frames",
        "api",
        "demo",
    ],
)
def test_help_needs_no_torch(command: str) -> None:
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in "
        "{'torch', 'ml4gw', 'lightning', 'onnx', 'gwpy', 'lal'}:\n"
        "            raise ModuleNotFoundError(f'{name} is not installed', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from chirpwatch.cli import main\n"
        f"main([{command!r}, '--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"Usage: chirpwatch {command}" in done.stdout


def test_the_console_command_lists_the_parts_in_order() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chirpwatch.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = done.stdout.split("Commands:")[1].split("\n")
    names = [line.split()[0] for line in listed if line.strip()]
    assert names == [
        "fetch",
        "simulate",
        "train",
        "export",
        "serve",
        "replay",
        "background",
        "live",
        "frames",
        "api",
        "demo",
    ]
