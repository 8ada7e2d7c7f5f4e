"""Frames of windows, made once, for a training that leaves the frontends as they are.

Templates and a learned frontend that are not trained give a window the same values at
every step, and making these is most of a step's cost. So they are kept: as many windows
as are asked for, each detector's values in half precision. A step then draws positives
as they are, and for every window without a merger each detector's values on their own,
which makes every pair of windows one more of them.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from chirpwatch.atomic import replacing
from chirpwatch.errors import ModelError
from chirpwatch.train.data.windows import Batch
from chirpwatch.train.networks.matched import MatchedNetwork

# What a seed is for, beside ``train.data.windows`` and ``train.evaluation.deployment``.
STOCK = 20
LARGEST = 6e4
"""Largest value that is kept: half precision has none above 65504."""

SAYING = "stock.json"
ARRAYS = ("power", "frames", "labels", "mergers", "snrs", "disturbances")


class FrameBatch(NamedTuple):
    """What a step trains on when frontends are left as they are.

    Attributes:
        power: Log-likelihood ratios of groups of templates, [batch, ifos, groups,
            frames].
        frames: The learned frontend's output, [batch, ifos, channels, frames].
        labels, mergers, snrs, disturbances: See ``Batch``.
    """

    power: Tensor
    frames: Tensor
    labels: Tensor
    mergers: Tensor
    snrs: Tensor
    disturbances: Tensor


def identity(network: MatchedNetwork, details: dict[str, Any]) -> str:
    """Digest of what a stock depends on.

    Args:
        network: Whose frontends make it.
        details: What the windows are made from; plain values.
    """
    digest = hashlib.sha256(json.dumps(details, sort_keys=True).encode())
    for part in (network.matched, network.frontend):
        for name, value in part.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def make_stock(
    folder: Path,
    network: MatchedNetwork,
    batches: Iterable[Batch],
    count: int,
    key: str,
) -> None:
    """Make the frames of all windows, and write them to a folder.

    The folder appears whole or not at all. One that is there already is kept if it is
    of the same frontends and windows, else made anew.

    Args:
        folder: Of the stock.
        network: Whose frontends make it.
        batches: Windows, as many in each.
        count: How many batches.
        key: As from ``identity``.

    Raises:
        ModelError: It cannot be written, as on a full disk.
    """
    saying = folder / SAYING
    if saying.exists() and json.loads(saying.read_text())["identity"] == key:
        return
    partial = folder.with_name(folder.name + ".partial")
    try:
        for left in (folder, partial):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_frames(partial, network, batches, count)
        with replacing(partial / SAYING) as temporary:
            temporary.write_text(json.dumps({"identity": key, "batches": count}))
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(
            f"{folder}: expected to write the frames of {count} batches of windows: "
            f"{error.strerror or error}. Make room, or set data.stock_batches to 0, "
            "which makes windows anew at each step"
        ) from error


@torch.no_grad()
def _write_frames(
    folder: Path, network: MatchedNetwork, batches: Iterable[Batch], count: int
) -> None:
    """Write an array for each part of all batches."""
    arrays: dict[str, NDArray[Any]] = {}
    device = next(network.parameters()).device
    for number, batch in enumerate(batches):
        windows = batch.windows.to(device)
        power, frames = (
            values.unflatten(0, windows.shape[:2])
            for values in network.filter(windows.flatten(0, 1)[:, None].float())
        )
        parts = (power.clamp(max=LARGEST).half(), frames.half(), *batch[1:])
        for name, part in zip(ARRAYS, parts, strict=True):
            values = part.cpu().numpy()
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy",
                    mode="w+",
                    dtype=values.dtype,
                    shape=(count * len(values), *values.shape[1:]),
                )
            first = number * len(values)
            arrays[name][first : first + len(values)] = values
    for array in arrays.values():
        assert isinstance(array, np.memmap)
        array.flush()


class StockStream(Dataset[FrameBatch]):
    """A finite stream of batches that are drawn from a stock.

    A batch is a function of stock, seed and index alone.

    Args:
        folder: Of a stock that ``make_stock`` made.
        batch_size: Windows in a batch, half of them with a merger.
        batches: Length of the stream.
        seed: Seed of what is drawn.
        flattening: How far groups of templates come equally often as the best one of
            a window with a merger: 0 leaves windows as they are, 1 makes them equal.
    """

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        batches: int,
        seed: tuple[int, ...],
        flattening: float = 0.0,
    ) -> None:
        self.batch_size, self.batches, self.seed = batch_size, batches, seed
        self.arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS
        }
        positive = self.arrays["labels"] > 0
        self.mergers, self.noise = np.flatnonzero(positive), np.flatnonzero(~positive)
        groups = np.array([self._best_group(row) for row in self.mergers])
        counts = np.bincount(groups, minlength=self.arrays["power"].shape[2])
        odds = counts[groups].astype(float) ** -flattening
        self.odds = odds / odds.sum()

    def _best_group(self, row: int) -> int:
        """Group with the largest sum of the detectors' largest values."""
        power = self.arrays["power"][row].astype(np.float32)
        return int(power.max(-1).sum(0).argmax())

    def __len__(self) -> int:
        """Batches in the stream."""
        return self.batches

    def __getitem__(self, index: int) -> FrameBatch:
        """Draw a batch.

        Raises:
            IndexError: The stream is not that long.
        """
        if not 0 <= index < self.batches:
            raise IndexError(index)
        rng = np.random.default_rng([*self.seed, STOCK, index])
        half = self.batch_size // 2
        # Rows in order: a disk that is read from likes them better.
        mergers = np.sort(rng.choice(self.mergers, half, p=self.odds))
        ifos = self.arrays["power"].shape[1]
        # Each detector's own, in an order of its own.
        noise = np.stack([rng.choice(self.noise, half) for _ in range(ifos)], 1)

        def detectors(name: str) -> NDArray[Any]:
            array = self.arrays[name]
            apart = np.stack([array[noise[:, i], i] for i in range(ifos)], 1)
            return np.concatenate([array[mergers], apart])

        def of_windows(name: str) -> NDArray[Any]:
            array = self.arrays[name][mergers]
            return np.concatenate([array, np.zeros(half, array.dtype)])

        parts: dict[str, Tensor] = {}
        for name in ARRAYS:
            single = name in ("labels", "mergers", "snrs")
            values = torch.from_numpy(of_windows(name) if single else detectors(name))
            parts[name] = values.float() if values.is_floating_point() else values
        return FrameBatch(**parts)
