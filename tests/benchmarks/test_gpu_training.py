"""The GPU training benchmark, as far as it runs without a GPU."""

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu_training import main, table
from chirpwatch.train.networks.checkpoint import load_checkpoint
from tests.networks import small_matched


def run(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(main, [str(folder), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_without_a_gpu_it_fails_before_writing_anything(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(main, [str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "expected a GPU that PyTorch can use, found none" in done.output
    assert "choose --accelerator cpu" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_seeds_are_trained_and_compared(tmp_path) -> None:
    folder = tmp_path / "run"
    options = ("--seed", "1", "--seed", "2", "--steps", "4", "--stock", "2")
    keys = small_matched(tmp_path)
    text = run(folder, *options, "--accelerator", "cpu", "--no-judge", *keys)
    assert "4 steps, a stock of 2 batches, on processor" in text
    assert re.search(r"^\| 1 \| .*\n\| 2 \| .*\n\| mean \| \d+\.\d ± ", text, re.M)
    assert "Found at SNR" not in text
    networks = [
        load_checkpoint(folder / f"seed-{seed}" / "network.ckpt") for seed in (1, 2)
    ]
    assert [details["seed"] for _, details in networks] == [1, 2]
    assert all(details["stock_batches"] == 2 for _, details in networks)
    told = json.loads((folder / "seeds.json").read_text())["seeds"]
    assert all(
        one["wall_length"] > 0
        and one["cpu_length"] > 0
        and one["host_peak"] > 0.1
        and one["gpu_peak"] is None
        and 0 <= one["loading_share"] <= 1
        for one in told.values()
    )
    # Existing trainings are kept, and enter the table.
    for number in range(2):
        figures = {
            "found": {
                kind: [{"snr": 8.0, "found": {"0.0001": 0.5 + number / 10}}] * 6
                for kind in ("gaussian", "glitches")
            },
            "thresholds": {},
            "signals": 1,
            "noise_windows": 1,
        }
        path = folder / f"seed-{number + 1}" / "validation.json"
        path.write_text(json.dumps(figures))
    weights = (folder / "seed-1" / "network.ckpt").read_bytes()
    text = run(folder, *options, "--accelerator", "cpu", *keys)
    assert (folder / "seed-1" / "network.ckpt").read_bytes() == weights
    assert "Found at SNR 8 and 0.0001 in Gaussian noise" in text
    assert "| 2 | 60.0 | 60.0 |" in text and "| mean | 55.0 ± 7.1 |" in text


def test_a_missing_efficiency_is_reported() -> None:
    one = {
        **dict.fromkeys(("gpu_peak", "loading_share"), None),
        **dict.fromkeys(("valid_found_hour", "valid_found_day"), None),
        **{"wall_length": 60.0, "cpu_length": 90.0, "host_peak": 2.0, "found": None},
    }
    assert "| 3 | 1.0 | 1.5 | n/a | 2.0 | n/a | n/a | n/a |" in table({3: one})
    assert "± " not in table({3: one})
