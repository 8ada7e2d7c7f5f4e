"""Cache of frontend outputs ("stock") for trainings with frozen frontends.

Frozen templates and a frozen learned frontend give a window the same output at every
step, and computing it is most of a step's cost. So the outputs of a fixed number of
windows are computed once and stored in half precision. A step draws windows with a
merger from them unchanged. A window without a merger is combined from detectors drawn
independently of each other, so that n stored windows give n² combinations of two
detectors.
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

STOCK = 20
"""Purpose of a seed; ``train.data.windows`` and ``train.evaluation.deployment`` have
others."""

LARGEST = 6e4
"""Values are clipped here: the largest finite half-precision number is 65504."""

MANIFEST = "stock.json"
ARRAYS = ("power", "frames", "labels", "mergers", "snrs", "disturbances")


class FrameBatch(NamedTuple):
    """Training batch of frontend outputs, used in place of windows.

    Attributes:
        power: Log-likelihood ratio of each group of templates, [batch, ifos, groups,
            frames].
        frames: Learned frontend's output, [batch, ifos, channels, frames].
        labels, mergers, snrs, disturbances: See ``Batch``.
    """

    power: Tensor
    frames: Tensor
    labels: Tensor
    mergers: Tensor
    snrs: Tensor
    disturbances: Tensor


def identity(network: MatchedNetwork, details: dict[str, Any]) -> str:
    """SHA-256 of the frontends and window settings that a stock depends on.

    Args:
        network: Network whose frontends compute the stock.
        details: Settings of the windows; JSON-ready.
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
    """Compute the frontend outputs of all windows, and write them to a folder.

    The write is atomic. An existing stock with the same key is kept; any other is
    replaced.

    Args:
        folder: Folder of the stock.
        network: Network whose frontends compute the stock.
        batches: Batches of windows, all of the same size.
        count: Number of batches.
        key: Digest from ``identity``.

    Raises:
        ModelError: The stock cannot be written, for example on a full disk.
    """
    manifest = folder / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text())["identity"] == key:
        return
    partial = folder.with_name(folder.name + ".partial")
    try:
        for outdated in (folder, partial):
            shutil.rmtree(outdated, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_frames(partial, network, batches, count)
        with replacing(partial / MANIFEST) as temporary:
            temporary.write_text(json.dumps({"identity": key, "batches": count}))
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(
            f"{folder}: cannot write the frontend outputs of {count} batches of "
            f"windows: {error.strerror or error}. Free some space, or set "
            "data.stock_batches to 0 to make new windows at each step"
        ) from error


@torch.no_grad()
def _write_frames(
    folder: Path, network: MatchedNetwork, batches: Iterable[Batch], count: int
) -> None:
    """Write one ``.npy`` file for each field of ``FrameBatch``."""
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
    """Finite stream of batches drawn from a stock.

    A batch depends on the stock, the seed and its index alone.

    Args:
        folder: Folder written by ``make_stock``.
        batch_size: Windows in a batch, half of them with a merger.
        batches: Length of the stream.
        seed: Seed of the draws.
        flattening: Exponent that evens out which group of templates matches best:
            a window with a merger is drawn with weight count ** -flattening, where
            count is the number of windows with the same best group. 0 draws all
            windows equally often; 1 draws all groups equally often.
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
        """Group of templates with the largest sum over detectors of peak power."""
        power = self.arrays["power"][row].astype(np.float32)
        return int(power.max(-1).sum(0).argmax())

    def __len__(self) -> int:
        """Batches in the stream."""
        return self.batches

    def __getitem__(self, index: int) -> FrameBatch:
        """Draw a batch.

        Raises:
            IndexError: ``index`` is outside the stream.
        """
        if not 0 <= index < self.batches:
            raise IndexError(index)
        rng = np.random.default_rng([*self.seed, STOCK, index])
        half = self.batch_size // 2
        # Sorted rows: reads from disk are then sequential.
        mergers = np.sort(rng.choice(self.mergers, half, p=self.odds))
        ifos = self.arrays["power"].shape[1]
        # Independent rows for each detector: every combination is a new window.
        noise = np.stack([rng.choice(self.noise, half) for _ in range(ifos)], 1)

        def detectors(name: str) -> NDArray[Any]:
            array = self.arrays[name]
            apart = np.stack([array[noise[:, i], i] for i in range(ifos)], 1)
            return np.concatenate([array[mergers], apart])

        def windows(name: str) -> NDArray[Any]:
            array = self.arrays[name][mergers]
            return np.concatenate([array, np.zeros(half, array.dtype)])

        parts: dict[str, Tensor] = {}
        for name in ARRAYS:
            single = name in ("labels", "mergers", "snrs")
            values = torch.from_numpy(windows(name) if single else detectors(name))
            parts[name] = values.float() if values.is_floating_point() else values
        return FrameBatch(**parts)
