"""Runs documentation: the first hour, the queries, a program, and the notebook.

A page's blocks are joined to a bash script, in which every line must succeed.
``SHORTER`` has the changes: a single Triton serves every command, a fixture has run the
demo with 20 of its 200 timeslides, and the background has fewer slides. The day of
strain and its year of background are skipped; ``test_docs.py`` parses both. The program
simulates 64 s instead of 4,096 s.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from chirpwatch.serve.embedded import TritonServer
from chirpwatch.shipped import SHIPPED
from tests import needs
from tests.project.pages import ROOT, blocks

DEMO = ["demo", "--directory", "runs/demo", "--slides", "20"]
SHORTER = {
    r"make demo": "true",
    r"\. \.venv/bin/activate": "true",
    r"(chirpwatch replay .*)": r'\1 --triton "$TRITON"',
    r"(chirpwatch background .*) --livetime 5d (.*)": (
        r'\1 --slides 8 \2 --triton "$TRITON"'
    ),
    r"chirpwatch .* day\.hdf5.*": "true",
    # A server in a second terminal, until the page is done.
    r"chirpwatch api (.*)": r"serve \1",
    r"API=http://127\.0\.0\.1:8080": 'API="$(cat address)"',
}
"""Lines of the pages, as regular expressions, and their replacements."""
PRELUDE = r"""
set -euo pipefail
curl() { command curl --fail-with-body --show-error "$@"; }
serve() {
    chirpwatch api "$@" --port 0 > api.log &
    servers="${servers:-} $!"
    until grep -q http api.log; do kill -0 $!; sleep 0.1; done
    sed 's/.* //' api.log > address
}
trap 'kill $servers' EXIT
"""


@pytest.fixture(scope="module")
def triton() -> Iterator[str]:
    """Address of a Triton with the shipped models."""
    with TritonServer(SHIPPED) as server:
        yield server.address


@pytest.fixture(scope="module")
def folder(triton: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the demo has been run."""
    folder = tmp_path_factory.mktemp("documented")
    command = [sys.executable, "-m", "chirpwatch", *DEMO, "--triton", triton]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def run(page: str, folder: Path, triton: str) -> str:
    """Run a page's blocks, and return their output."""
    script = PRELUDE
    for block in blocks("sh", "python"):
        if block.page != page:
            continue
        if block.language == "sh":
            script += shorter(block.text)
        else:
            text = block.text.replace(
                '"http://127.0.0.1:8080"', 'open("address").read().strip()'
            )
            script += f"python - <<'END'\n{text}END\n"
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "TRITON": triton,
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def shorter(text: str) -> str:
    """Replace slow lines of a shell block by ``SHORTER``."""
    lines = []
    for line in text.replace("\\\n", " ").splitlines():
        for pattern, other in SHORTER.items():
            line, count = re.subn(rf"^{pattern}$", other, line)
            if count:
                break
        lines.append(line)
    return "\n".join(lines) + "\n"


def test_every_replacement_matches_a_line() -> None:
    text = "\n".join(block.text.replace("\\\n", " ") for block in blocks("sh"))
    for pattern in SHORTER:
        assert re.search(rf"^{pattern}$", text, re.MULTILINE), pattern


def test_first_hour(folder: Path, triton: str) -> None:
    for path in needs.gwosc_files():
        (folder / path.name).symlink_to(path)
    printed = run("docs/first-hour.md", folder, triton)
    # As on the page: the loudest event, the veto, the next event, GW150914.
    shown = (ROOT / "docs/first-hour.md").read_text()
    for line in ('"id": "1262305016851137638"', '"vetoed": 1', '"livetime": 1190.125'):
        assert line in printed
        assert line in shown
    assert "1126259462.41" in printed
    assert " WARNING replay: left out: timeslides 10 to 100" in printed
    assert "one an hour" in printed
    assert (folder / "runs/days/background.hdf5").exists()


def test_queries(folder: Path, triton: str) -> None:
    printed = run("docs/how-to/query.md", folder, triton)
    # The 304 answer, the client's output, and the pandas table.
    assert re.search(r"}304$", printed, re.MULTILINE)
    assert "p-value " in printed
    assert "events above 6 in " in printed
    assert "(15, 20]    1.0" in printed


def test_simulation_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [
        block
        for block in blocks("python")
        if block.page == "docs/explanation/simulation.md"
    ]
    monkeypatch.chdir(tmp_path)
    shorter = block.text.replace("4096)", "64)")
    assert shorter != block.text
    exec(compile(shorter, block.page, "exec"), {})
    assert Path("background.hdf5").exists()
    assert Path("signals.hdf5").exists()


def test_notebook(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = ROOT / "docs/notebooks/query_a_run.ipynb"
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    database = folder / "runs/demo/results.db"
    command = [sys.executable, "-m", "chirpwatch", "api", "--database", str(database)]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            monkeypatch.setenv("CHIRPWATCH_URL", address)
            NotebookClient(
                notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
            ).execute()
        finally:
            server.terminate()
    figures = [
        output
        for cell in cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(figures) == 2
