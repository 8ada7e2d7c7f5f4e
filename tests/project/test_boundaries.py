"""Allowed imports between packages, and parts that must not need torch."""

import ast
import json
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.project.rooms import arrows, file_of, floors, imported, sources

ROOT = Path(__file__).parents[2]
# Packages that each package may import; all may import `chirpwatch` itself.
ALLOWED: dict[str, set[str]] = {
    "chirpwatch": set(),
    "train": set(),
    "export": {"train"},
    "serve": set(),
    "streamer": {"api", "serve"},
    "api": set(),
    "commands": {"streamer", "train"},
}
# Parts of the results service that others may import: bodies, client, process.
CONTRACT = ("api/contract/", "api/client.py", "api/process.py")
COMMANDS = [
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


def test_imports_go_one_way() -> None:
    files = sources()
    # Raises for circular imports.
    assert floors(arrows(files))["commands"] > 1
    for path, text in files.items():
        package = path.split("/")[0]
        for name in imported(text):
            assert name.split(".")[0] not in ALLOWED.keys() - {"chirpwatch"}, path
            other = file_of(name, files)
            if other is None or other.split("/")[0] in {package, "chirpwatch"}:
                continue
            assert other.split("/")[0] in ALLOWED[package], f"{path} imports {name}"
            if other.startswith("api/"):
                assert other.startswith(CONTRACT), f"{path} imports {name}"


def test_no_test_module_imports_from_another_one() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            assert not getattr(node, "level", 0), f"{path} has a relative import"
        for name in imported(text):
            top, *parts = name.split(".")
            apart = any(part == "conftest" or part[:5] == "test_" for part in parts)
            assert top != "tests" or not apart, f"{path} imports {name}"


# Extras of pyproject.toml whose packages each folder may import, in addition to
# chirpwatch's own requirements. Streamer imports its extra's only for live strain.
EXTRAS: dict[str, set[str]] = {
    "chirpwatch": set(),
    "api": set(),
    "serve": set(),
    "commands": set(),
    "streamer": {"live"},
    "train": {"train"},
    "export": {"train"},
    "benchmarks": {"train", "live", "dev"},
    "tests": {"train", "live", "dev"},
}
OURS = {"chirpwatch", "tests", "benchmarks"}
# Triton provides the first, `requirements/ml4gw-hermes-0.3.1.lock` the other.
UNDECLARED = {"triton_python_backend_utils", "hermes"}


def normal(requirement: str) -> str:
    """Normalised name of a requirement's distribution, as pip compares it."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def third_parties(text: str) -> Iterator[str]:
    """Top-level third-party modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for top in {name.split(".")[0] for name in names}:
            if top not in sys.stdlib_module_names | OURS:
                yield top


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {None: {normal(x) for x in project["dependencies"]}}
    for extra, requirements in project["optional-dependencies"].items():
        declared[extra] = {normal(x) for x in requirements}
    distributions = packages_distributions()
    missing = set()
    listed = subprocess.run(
        ["git", "ls-files", "--", *(f"{folder}/*.py" for folder in EXTRAS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    for path in listed.stdout.splitlines():
        folder = path.split("/")[0]
        allowed = declared[None].union(*(declared[x] for x in EXTRAS[folder]))
        for module in third_parties((ROOT / path).read_text()):
            names = {normal(name) for name in distributions.get(module, ())}
            if module not in UNDECLARED and not names & allowed:
                missing.add(f"{path} imports {module}, of {sorted(names)}")
    assert not missing, "\n".join(sorted(missing))


# Packages that a command's module may import beside the standard library and the
# project, including rich's own imports.
LIGHT = {"click", "rich", "pygments", "markdown_it", "mdurl"}
# Runs every command with --help and with an unknown option, then with arguments that
# only its function can refuse. Prints each output, and the imported modules.
EVERY_COMMAND = """
import contextlib, io, json, sys
before = set(sys.modules)
import click
from chirpwatch.commands.cli import cli, main

asked = []

def ask(*arguments):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            main(arguments)
        except SystemExit as end:
            status = end.code
    names = sorted({name.split(".")[0] for name in set(sys.modules) - before})
    before.update(sys.modules)
    asked.append([arguments, status, shown.getvalue(), names])

def ask_all(command, path):
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                ask_all(command.get_command(context, name), (*path, name))
    ask(*path, "--help")
    # The keys of a configuration are options as well, which Lightning knows.
    if path != ("train", "fit"):
        ask(*path, "--no-such-option")

ask_all(cli, ())
for arguments in json.loads(sys.argv[1]):
    ask(*arguments)
print(json.dumps(asked))
"""
WRONG_USAGE = [
    ["fetch"],
    ["simulate", "background", "out.hdf5", "--drift-length", "20"],
    ["simulate", "signals", "out.hdf5", "--shifts", "zero"],
    ["simulate", "polarizations", "out.hdf5", "--time-dilation"],
    ["train", "rank"],
    ["export", "network.ckpt"],
    ["serve", "--grpc-port", "70000"],
    ["replay"],
    ["background", "--background", "strain.hdf5"],
    ["live", "--frames", "frames", "--state-bits", "99"],
    ["frames", "--frames", "frames"],
    ["api", "--host", "0.0.0.0"],
    ["demo", "--slides", "1"],
]


def test_help_and_wrong_usage_import_nothing_heavy(tmp_path: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CHIRPWATCH_")}
    done = subprocess.run(
        [sys.executable, "-c", EVERY_COMMAND, json.dumps(WRONG_USAGE)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(ROOT)},
    )
    asked = json.loads(done.stdout)
    light = LIGHT | {"chirpwatch"} | set(sys.stdlib_module_names)
    for arguments, status, shown, modules in asked:
        command = " ".join(["chirpwatch", *arguments])
        assert not set(modules) - light, f"{command} imports {set(modules) - light}"
        if arguments[-1] == "--help":
            assert status == 0, f"{command}: {shown}"
            assert shown.startswith(f"Usage: {command.removesuffix(' --help')}")
        else:
            assert status in (1, 2), f"{command}: {shown}"
            assert "Error: " in shown or shown.startswith("chirpwatch: "), shown
    helped = {arguments[0] for arguments, *_ in asked if arguments[1:] == ["--help"]}
    assert helped == set(COMMANDS)
    assert list(tmp_path.iterdir()) == []


def processor_time(*arguments: str) -> float:
    """CPU time of a Python process, s."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def test_help_costs_little_more_than_click_and_rich() -> None:
    # Both in turn, under the same load; the first runs compile changed modules.
    times = [
        (
            processor_time("-m", "chirpwatch", "--help"),
            processor_time("-c", "import click, rich.progress"),
        )
        for _ in range(6)
    ]
    shown, reference = (min(column) for column in zip(*times, strict=True))
    # Measured: 1.65 (0.15 s). NumPy alone would make it 2.4.
    assert shown < 2.2 * reference, f"{shown:.3f} s, against {reference:.3f} s"


def test_services_need_no_torch() -> None:
    modules = [
        "chirpwatch." + path.removeprefix("chirpwatch/").removesuffix(".py")
        for path in sources()
        if path.split("/")[0] in ("chirpwatch", "serve", "streamer", "api")
        # These modules run within Triton and Alembic.
        and not {"backends", "migrations"} & set(path.split("/"))
    ]
    modules = [name.removesuffix("/__init__").replace("/", ".") for name in modules]
    # The demo simulates its strain.
    modules.append("chirpwatch.train.data.noise.background")
    program = (
        "import importlib, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in "
        "{'torch', 'ml4gw', 'lightning', 'onnx', 'gwpy', 'lal'}:\n"
        "            raise ModuleNotFoundError(f'{name} is not installed', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_shipped_files_are_found_without_the_checkout(tmp_path) -> None:
    (tmp_path / "chirpwatch").symlink_to(ROOT / "chirpwatch")
    program = (
        "from chirpwatch.train.networks.bank import shipped_bank_path\n"
        "from chirpwatch.train.networks.checkpoint import find_checkpoint\n"
        "from chirpwatch.train.evaluation.report import ENVIRONMENT\n"
        "from chirpwatch.train.fitting.fit import find_config\n"
        "assert ENVIRONMENT.get_template('report.html')\n"
        "for path in (shipped_bank_path(), find_checkpoint('split'), "
        "find_config('matched')):\n"
        "    assert path.is_file(), path\n"
    )
    done = subprocess.run(
        # Another working directory, and only this on the path.
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_the_console_command_lists_the_parts_in_order() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chirpwatch", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = done.stdout.split("Commands:")[1].split("\n")
    names = [line.split()[0] for line in listed if line.strip()]
    assert names == COMMANDS


REASONED = re.compile(
    r"# (noqa: [A-Z0-9, ]+ (- |\()\w|type: ignore\[[a-z, -]+\] +# ?\w)"
)


def test_each_lint_ignore_carries_its_reason() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    for path in listed.stdout.splitlines():
        with (ROOT / path).open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if re.match(r"# ?(noqa|type: ignore)", token.string):
                    assert REASONED.match(token.string), f"{path}: {token.line}"
