"""The rank of a real event among the background of its own strain."""

import functools
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from chirpwatch.background import Background
from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.train.cli import train
from chirpwatch.train.data.noise.background import simulate_background
from chirpwatch.train.evaluation import deployment
from chirpwatch.train.evaluation.deployment import (
    DeployedValidation,
    whiten_stretch,
)
from chirpwatch.train.evaluation.rank import rank_event
from chirpwatch.train.networks.checkpoint import (
    find_checkpoint,
    load_checkpoint,
)
from tests.builders import GW150914
from tests.networks import SPLIT

GEOMETRY = Geometry()
QUIET = Background.of([1.0, 2.0, 3.0], 1e6)


@pytest.fixture(scope="module")
def split():
    return load_checkpoint(SPLIT, "split")[0]


@pytest.fixture(scope="module")
def segment():
    strain, _ = simulate_background(16, "O3", GEOMETRY.ifos, 2048, seed=3)
    return Segment(1000 * NANOSECONDS, 2048, strain)


@torch.inference_mode()
def test_every_pair_of_separate_windows_counts_once(split, segment) -> None:
    result = rank_event(split, segment, 1012.0, QUIET)
    whitened = [
        whiten_stretch(segment.read(ifo, 0, segment.size).astype(float), GEOMETRY)
        for ifo in GEOMETRY.ifos
    ]
    windows = [torch.from_numpy(series).unfold(-1, 2048, 256) for series in whitened]
    kernels = len(windows[0])
    # The first valid score is that at 8 s.
    assert kernels == (16 - 8) * 8 + 1
    apart = [(i, j) for i in range(kernels) for j in range(kernels) if abs(i - j) >= 17]
    one, two = np.array(apart).T
    alone = split.fused()(torch.stack([windows[0][one], windows[1][two]], 1))
    assert result["file"]["windows"] == len(apart)
    assert result["file"]["loudest"] == pytest.approx(float(alone.max()), abs=1e-3)
    # The first kernel begins 1.5 s before the end of the first 8 s.
    begins = 1000 + 8 - 1.5 + np.arange(kernels) / 8
    holds = (begins <= 1012.0) & (begins + 1 > 1012.0)
    quiet = ~holds[one] & ~holds[two]
    assert result["file_without_event"]["windows"] == quiet.sum()
    zero_lag = split.fused()(torch.stack([windows[0], windows[1]], 1))[:, 0].numpy()
    assert result["statistic"] == pytest.approx(zero_lag[holds].max(), abs=1e-3)
    assert result["background"]["livetime"] == 1e6


def test_a_time_without_a_valid_score_is_refused(split, segment) -> None:
    with pytest.raises(StrainError, match=r"no valid kernel contains GPS 1003\.000"):
        rank_event(split, segment, 1003.0, QUIET)


def test_gw150914_is_louder_than_any_background(
    gwosc_files, tmp_path, monkeypatch
) -> None:
    # Two days and a half in place of ten.
    shorter = functools.partial(DeployedValidation, length=2048.0, slides=108)
    monkeypatch.setattr(deployment, "DeployedValidation", shorter)
    options = [f"--strain={path}" for path in gwosc_files]
    out = tmp_path / "rank.json"
    done = CliRunner().invoke(
        train,
        [
            "rank",
            str(find_checkpoint("matched")),
            *options,
            f"--time={GW150914}",
            f"--out={out}",
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    result = json.loads(out.read_text())
    assert result["file"]["windows"] > 25_000
    for part in ("zero_lag", "file", "file_without_event", "background"):
        assert result[part]["as_loud"] == 0, part
        assert result[part]["loudest"] < result["statistic"]
    assert result["background"]["saturated"]
    assert result["background"]["livetime"] > 2 * 86400
