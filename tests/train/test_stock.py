"""The stock: frontend outputs computed once, from which every step draws."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.windows import Batch
from chirpwatch.train.fitting import stock
from chirpwatch.train.fitting.fit import fit
from chirpwatch.train.fitting.stock import (
    ARRAYS,
    MANIFEST,
    StockStream,
    identity,
    make_stock,
)
from chirpwatch.train.networks.matched import MatchedNetwork
from tests.networks import SUB_BANKS, TINY, small_matched
from tests.train.process import train_and_kill

GEOMETRY = Geometry(kernel_length=2.0)
SIZES = {"sub_banks": SUB_BANKS, "groups": 8, "width": 8}
BATCHES, WINDOWS = 3, 8


@pytest.fixture(scope="module")
def network() -> MatchedNetwork:
    torch.manual_seed(1)
    network = MatchedNetwork(GEOMETRY, **SIZES)
    torch.nn.init.normal_(network.matched.parts[0].mix, std=0.1)
    return network.eval()


def batch(number: int) -> Batch:
    """Windows that differ from those of other batches."""
    torch.manual_seed(number)
    labels = (torch.arange(WINDOWS) < WINDOWS // 2).float()
    kinds = torch.randint(3, (WINDOWS, 2)) * (labels == 0)[:, None]
    windows = torch.randn(WINDOWS, 2, GEOMETRY.kernel_size)
    # A detector whose windows are disturbed is louder.
    windows *= (1 + kinds)[..., None]
    snrs = labels * (10 * number + torch.arange(WINDOWS) + 1)
    return Batch(windows, labels, 100 * snrs, snrs, kinds)


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stock") / "stock" / "0"
    make_stock(folder, network, map(batch, range(BATCHES)), BATCHES, "key")
    return folder


def stream(folder: Path, flattening: float = 0.0, size: int = 16) -> StockStream:
    return StockStream(folder, size, 20, (1, 0), flattening)


def test_a_stock_holds_the_frontends_outputs_of_each_window(network, folder) -> None:
    assert not list(folder.parent.glob("*.partial"))
    for number in range(BATCHES):
        windows = batch(number).windows
        rows = slice(number * WINDOWS, (number + 1) * WINDOWS)
        with torch.no_grad():
            made = network.filter(windows.flatten(0, 1)[:, None])
        for name, values in zip(ARRAYS[:2], made, strict=True):
            kept = torch.from_numpy(np.load(folder / f"{name}.npy")[rows]).float()
            torch.testing.assert_close(
                kept, values.unflatten(0, (WINDOWS, 2)), rtol=1e-3, atol=1e-3
            )
        for name, values in zip(ARRAYS[2:], batch(number)[1:], strict=True):
            assert np.array_equal(np.load(folder / f"{name}.npy")[rows], values)


def test_mergers_are_drawn_jointly_and_noise_for_each_detector(folder) -> None:
    arrays = {name: np.load(folder / f"{name}.npy") for name in ARRAYS}
    apart = 0
    for drawn in map(stream(folder).__getitem__, range(20)):
        assert torch.equal(drawn.labels, (torch.arange(16) < 8).float())
        for row in range(16):
            origins = []
            for i in range(2):
                same = (
                    arrays["power"][:, i] == drawn.power[row, i].half().numpy()
                ).all((1, 2))
                (origin,) = np.flatnonzero(same)
                origins.append(int(origin))
                assert np.array_equal(
                    arrays["frames"][origin, i], drawn.frames[row, i].half()
                )
                assert (
                    arrays["disturbances"][origin, i] == drawn.disturbances[row, i]
                ), "expected the disturbance of the drawn strain"
                assert arrays["labels"][origin] == drawn.labels[row]
            if row < 8:
                assert origins[0] == origins[1]
                assert arrays["snrs"][origins[0]] == drawn.snrs[row] > 0
                assert arrays["mergers"][origins[0]] == drawn.mergers[row]
            else:
                apart += origins[0] != origins[1]
                assert drawn.snrs[row] == drawn.mergers[row] == 0
    # Both detectors come from the same stored window only by chance.
    assert apart > 0.8 * 160


def test_a_batch_is_a_function_of_seed_and_index(folder) -> None:
    one, other = stream(folder), stream(folder)
    first = [one[index] for index in range(6)]
    for index in reversed(range(6)):
        assert all(map(torch.equal, first[index], other[index]))
    assert not torch.equal(first[0].power, first[1].power)
    assert len(one) == 20
    with pytest.raises(IndexError):
        one[20]


@pytest.mark.parametrize("flattening", [0.0, 0.5, 1.0])
def test_group_frequencies_are_flattened_by_the_setting(tmp_path, flattening) -> None:
    """The stock has a group that is nine times as frequent as the other."""
    groups = np.repeat([2, 0], [90, 10])
    power = np.ones((200, 2, 3, 4), np.float16)
    # One detector alone may have a larger value in another group.
    power[:100, 0, 1, 0] = 6
    power[np.arange(100), 0, groups, 1] = 4
    power[np.arange(100), 1, groups, 2] = 5
    labels = np.repeat([1.0, 0.0], 100).astype(np.float32)
    arrays = {
        "power": power,
        "frames": np.zeros((200, 2, 1, 4), np.float16),
        "labels": labels,
        "mergers": labels,
        "snrs": np.r_[groups, np.zeros(100)].astype(np.float32),
        "disturbances": np.zeros((200, 2), np.int64),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    drawn = stream(tmp_path, flattening, 2000)[0]
    frequent = float((drawn.snrs[:1000] == 2).float().mean())
    ratio = 9 ** (1 - flattening)
    assert abs(frequent - ratio / (1 + ratio)) < 0.06


def test_a_stock_is_reused_only_with_the_same_key(network, folder) -> None:
    def refuse():
        raise AssertionError("made again")
        yield

    make_stock(folder, network, refuse(), BATCHES, "key")
    manifest = (folder / MANIFEST).read_text()
    with pytest.raises(AssertionError, match="made again"):
        make_stock(folder, network, refuse(), BATCHES, "another")
    # An incomplete stock is made again.
    assert not (folder / MANIFEST).exists()
    make_stock(folder, network, map(batch, range(BATCHES)), BATCHES, "key")
    assert (folder / MANIFEST).read_text() == manifest


def test_a_stocks_key_depends_on_filters_frontend_and_windows(network) -> None:
    details = {"windows": {"min_mass": 5.0}}
    key = identity(network, details)
    assert key == identity(network, details)
    assert key != identity(network, {"windows": {"min_mass": 6.0}})
    for part in (network.matched.parts[0].mix, network.frontend.stem.conv.weight):
        before = part.data.clone()
        part.data += 1e-3
        assert identity(network, details) != key
        part.data = before
    # The ceilings come after the frames that are stored.
    bias = network.ceiling.bias
    before = bias.data.clone()
    bias.data += 1
    assert identity(network, details) == key
    bias.data = before


def test_a_full_disk_is_reported_and_leaves_no_partial_stock(
    network, tmp_path, monkeypatch
) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(ModelError, match=r"No space left.*data\.stock_batches"):
        make_stock(tmp_path / "stock", network, map(batch, range(2)), 2, "key")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> tuple[str, ...]:
    return (
        *small_matched(tmp_path_factory.mktemp("bank")),
        "--steps=12",
        "--validate_every=4",
        "--monitor=valid_loss",
        "--data.stock_batches=4",
        "--data.stock_flattening=1",
    )


def test_killed_training_from_a_stock_resumes_to_the_same_weights(
    arguments, tmp_path, monkeypatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(whole, ["matched"], arguments=arguments)
    assert not (whole / "stock").exists()
    train_and_kill(parts, "matched", arguments)
    assert json.loads((parts / "stock" / "0" / MANIFEST).read_text())["batches"] == 4
    # The stock is reused.
    monkeypatch.setattr(stock, "_write_frames", None)
    fit(parts, resume=True)
    weights = [
        torch.load(path / "network.ckpt", weights_only=True)["weights"]
        for path in (whole, parts)
    ]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    # The training is finished: validating it again makes no stock.
    fit(parts, resume=True)
    assert not (parts / "stock").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--model.frontend_rate=0.1"], "data.stock_batches: expected 0, or"),
        (["--model.filters_rate=0.1"], "data.stock_batches: expected 0, or"),
        (["--model.slides=0"], "data.stock_batches: expected 0, or"),
        (["--data.stock_flattening=1.5"], "stock_flattening between 0 and 1"),
        (["--data.stock_batches=-1"], "stock_batches of 0 or more"),
        (["--data.windows.first_snr=9"], "the same first_snr and last_snr"),
    ],
)
def test_wrong_stock_settings_are_refused_before_a_stock_is_made(
    arguments, tmp_path, changes, message
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        fit(tmp_path / "run", ["matched"], arguments=[*arguments, *changes])
    assert not (tmp_path / "run").exists()


def test_other_models_have_no_stock(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"stock_batches: expected 0, or"):
        fit(
            tmp_path / "run",
            ["split"],
            arguments=[*TINY, "--data.stock_batches=2", "--data.windows.first_snr=30"],
        )
