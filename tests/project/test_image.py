"""The Dockerfile's steps, run in a virtual environment without Docker."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACE = "/opt/chirpwatch"


def instructions() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Base and instructions of each stage of the Dockerfile."""
    text = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    stage = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, stage = rest.split()
            found[stage] = base, []
        elif stage:
            found[stage][1].append((word, rest.strip()))
    return found


def variables(steps: list[tuple[str, str]], place: Path) -> dict[str, str]:
    """Environment variables that a stage sets."""
    found = {}
    for word, rest in steps:
        if word == "ENV":
            for part in shlex.split(rest):
                name, _, value = part.partition("=")
                value = value.replace(PLACE, str(place))
                found[name] = value.replace("$PATH", os.environ["PATH"])
    return found


def build(stage: str, folder: Path) -> Path:
    """Build a stage and its base; return the resulting folder."""
    base, steps = instructions()[stage]
    place = folder / "opt"
    if base in instructions():
        build(base, folder)
        base_steps = instructions()[base][1]
    else:
        base_steps = []
    work = folder / "build"
    work.mkdir(exist_ok=True)
    # The base interpreter, without the packages of the tests' environment.
    python = Path(sys.base_prefix) / "bin"
    environment = {"HOME": str(folder), "PATH": f"{python}:{os.environ['PATH']}"}
    for name in os.environ:
        # Settings of the package index are the machine's.
        if name.startswith(("PIP_", "SSL_", "REQUESTS_")) or "proxy" in name.lower():
            environment[name] = os.environ[name]
    if base_steps:
        environment |= variables(base_steps, place)
    for number, (word, rest) in enumerate(steps):
        if word == "ENV":
            environment |= variables(steps[: number + 1], place)
        elif word == "COPY":
            source, target = rest.split()
            if source == ".":
                files = subprocess.run(
                    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
                )
                for name in files.stdout.splitlines():
                    (work / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, work / name, follow_symlinks=False)
            else:
                (work / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, work / target)
        elif word == "RUN":
            done = subprocess.run(
                ["bash", "-ec", rest.replace(PLACE, str(place))],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{rest}: {done.stdout}{done.stderr}"
        else:
            assert word == "WORKDIR", f"{stage}: {word} is not known here"
    return place


def run_in(place: Path, folder: Path, *command: str) -> str:
    """Run a command in the image's environment only, and return its output."""
    environment = variables(instructions()["runtime"][1], place)
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | {"HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_image_serves_and_searches(tmp_path: Path) -> None:
    place = build("build", tmp_path)
    find = "import importlib.util as u; print(u.find_spec({!r}) is not None)"
    installed = {"chirpwatch.api": True, "torch": False, "lalframe": False}
    # Packages of other projects have these names.
    installed |= dict.fromkeys(("api", "export", "serve", "streamer", "train"), False)
    for module, there in installed.items():
        found = run_in(
            place, tmp_path, f"{place}/bin/python", "-c", find.format(module)
        )
        assert found.strip() == str(there), module
    out = run_in(place, tmp_path, f"{place}/bin/chirpwatch", "demo", "--slides", "4")
    assert "Injections found" in out
    # The other image can also read frames.
    build("build-live", tmp_path)
    for module in ("lalframe", "ligo.gracedb.rest"):
        found = run_in(
            place, tmp_path, f"{place}/bin/python", "-c", find.format(module)
        )
        assert found.strip() == "True", module
