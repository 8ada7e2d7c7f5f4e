"""The demo, as ``make demo`` runs it, with the shipped models."""

import json
import subprocess
import sys
from pathlib import Path

from tests.builders import slide_livetime

WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "ml4gw", "lightning", "onnx", "gwpy", "lal"}:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Refuse())
from chirpwatch.commands.cli import main
main(sys.argv[1:])
"""


def test_demo_finds_its_injections_and_needs_no_torch(tmp_path: Path) -> None:
    result_file = tmp_path / "result.json"
    command = [
        *(sys.executable, "-c", WITHOUT_TORCH, "demo", "--directory", str(tmp_path)),
        *("--json", str(result_file)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The page: http://127.0.0.1:" in done.stdout
    result = json.loads(result_file.read_text())
    assert result["simulated"]
    assert result["livetime"]["zero_lag"] == 1200 - 7.875
    slides = result["background"]["slides"]
    # A single stretch of 1200 s.
    assert [slide["livetime"] for slide in slides] == [
        slide_livetime(9600, 195 * k) for k in range(1, 201)
    ]
    # Zero-lag is noise only: its events agree with the background.
    assert result["zero_lag"][0]["far_per_year"] > 2000

    injections = result["injections"]
    loud = [one for one in injections["found"] if one["snr"] >= 10]
    missed = [one for one in injections["missed"] if one["snr"] >= 10]
    assert len(loud) >= 20
    assert len(missed) <= 0.1 * len(loud)
    for one in loud:
        assert abs(one["event"]["time"] - one["time"]) < 1 / 16
    assert result["throughput"] > 100
    assert result["slides_throughput"] > 1000
    assert result["latency"]["p50"] < 100
