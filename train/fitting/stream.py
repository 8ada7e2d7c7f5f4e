"""The stream of training batches, from loud signals to faint ones.

A batch is a function of seed, process and index alone. So the stream can be entered
anywhere, and any number of workers make the same one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.sources import StretchSource
from chirpwatch.train.data.recorded import RecordedStretches
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.data.windows import Batch, WindowMaker
from chirpwatch.train.fitting.stock import (
    StockStream,
    identity,
    make_stock,
)
from chirpwatch.train.networks.checkpoint import probe
from chirpwatch.train.networks.matched import MatchedNetwork

STOCKS = "stock"
"""Folder within a run's, until the training ends: a stock for each process."""

# Batches that a worker makes ahead.
PREFETCH = 16
GEOMETRY, WINDOWS = Geometry(), WindowSettings()


class WindowStream(Dataset[Batch]):
    """A finite stream of batches, from loud signals to faint ones.

    Args:
        geometry: Kernel, PSD and filter lengths.
        settings: What the windows hold.
        batches: Length of the stream.
        seed: Seed of everything that is drawn; one number or several.
        sources: Strain of each detector; simulated as the settings say if None.
        device: Where windows are made.
    """

    def __init__(
        self,
        geometry: Geometry,
        settings: WindowSettings,
        batches: int,
        seed: int | tuple[int, ...],
        sources: Mapping[str, StretchSource] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.geometry, self.settings = geometry, settings
        self.batches, self.seed = batches, seed
        self.sources, self.device = sources, device
        self._maker: WindowMaker | None = None

    def __len__(self) -> int:
        """Batches in the stream."""
        return self.batches

    def __getitem__(self, index: int) -> Batch:
        """Make a batch; the smallest SNR falls over the first half of them.

        Cheapest in order, see ``WindowMaker.batch``.

        Raises:
            IndexError: The stream is not that long.
        """
        if not 0 <= index < self.batches:
            raise IndexError(index)
        settings = self.settings
        if self._maker is None:
            # Not before it is used: each worker has its own.
            self._maker = WindowMaker(
                self.geometry, settings, self.seed, self.sources, self.device
            )
        progress = min(1.0, 2 * index / self.batches)
        span = settings.last_snr - settings.first_snr
        return self._maker.batch(index, settings.first_snr + span * progress)


class Span(Sampler[int]):
    """Indices from wherever the training is, as many as an epoch has.

    Args:
        position: Gives the index to begin at, whenever iteration begins.
        size: Indices in an epoch.
        end: One more than the last index of all.
    """

    def __init__(self, position: Callable[[], int], size: int, end: int) -> None:
        self.position, self.size, self.end = position, size, end

    def __iter__(self) -> Iterator[int]:
        """Count on from the position."""
        begin = self.position()
        return iter(range(begin, min(begin + self.size, self.end)))

    def __len__(self) -> int:
        """Indices in an epoch."""
        return self.size


class WindowData(lightning.LightningDataModule):
    """Windows to train on, made while the network trains, and what judges it.

    On a CPU, windows are made by processes of their own; on a GPU, by the training's
    process on the GPU.

    Args:
        geometry: Kernel, PSD and filter lengths.
        windows: What the windows hold; a step's batch is divided among the processes of
            a distributed training.
        background: File of recorded strain to train and to validate on; noise is
            simulated if None.
        workers: Processes that make windows, for each process that trains; 0 makes them
            in between the steps.
        stock_batches: Batches of windows whose frames are made once, before the first
            step, and drawn from at every step, for a training that leaves the frontends
            as they are, see ``train.fitting.stock``; 0 makes windows anew at each step.
        stock_flattening: How far groups of templates come equally often as the best one
            of what is drawn, see ``StockStream``.
        validation_length: Strain that the deployed validation looks at, s.
        validation_slides: Timeslides of it, for a network whose frames can be shifted.
        validation_plain_slides: Timeslides of it for any other, which runs again for
            each; without one, no share is found at a false-alarm rate.
        validation_injections: Mergers injected into other strain.
        validation_windows: Single windows without a signal.
        steps: Steps of the training.
        validate_every: Steps between two validations.
        seed: Seed of the training's windows.
        folder: Folder of the run; the stock is kept in it.

    Raises:
        ConfigurationError: A stock cannot be drawn from as asked.
    """

    def __init__(
        self,
        geometry: Geometry = GEOMETRY,
        windows: WindowSettings = WINDOWS,
        background: str | None = None,
        workers: int = 1,
        stock_batches: int = 0,
        stock_flattening: float = 0.0,
        validation_length: float = 4096.0,
        validation_slides: int = 216,
        validation_plain_slides: int = 0,
        validation_injections: int = 1000,
        validation_windows: int = 40_960,
        steps: int = 6500,
        validate_every: int = 500,
        seed: int = 1,
        folder: str = "runs/train",
    ) -> None:
        super().__init__()
        if stock_batches < 0 or not 0 <= stock_flattening <= 1:
            raise ConfigurationError(
                "data: expected stock_batches of 0 or more and stock_flattening "
                f"between 0 and 1, found {stock_batches} and {stock_flattening:g}"
            )
        if stock_batches and windows.first_snr != windows.last_snr:
            raise ConfigurationError(
                "data.windows: expected the same first_snr and last_snr for a stock, "
                "which is drawn from in no order, found "
                f"{windows.first_snr:g} and {windows.last_snr:g}"
            )
        self.stock_batches, self.stock_flattening = stock_batches, stock_flattening
        self.folder = folder
        self.geometry, self.windows = geometry, windows
        self.background, self.workers = background, workers
        self.validation = {
            "slides": validation_slides,
            "plain_slides": validation_plain_slides,
            "injections": validation_injections,
            "windows": validation_windows,
        }
        self.validation_length = validation_length
        self.recorded: dict[str, dict[str, RecordedStretches]] = {}
        self.steps, self.validate_every, self.seed = steps, validate_every, seed

    def setup(self, stage: str) -> None:
        """Look through the recorded strain, before anything is made of it.

        Raises:
            StrainError: It cannot be trained on.
        """
        if self.background is not None and not self.recorded:
            recorded = {
                split: {
                    ifo: RecordedStretches(self.background, split, ifo, self.geometry)
                    for ifo in self.geometry.ifos
                }
                for split in ("train", "valid")
            }
            self._check_length(recorded["valid"])
            self.recorded = recorded

    def _check_length(self, sources: Mapping[str, RecordedStretches]) -> None:
        """Refuse segments that the validation's stretches do not fit in."""
        from chirpwatch.train.evaluation.deployment import STRETCHES

        needed = self.validation_length / STRETCHES
        for source in sources.values():
            longest = max(segment.size for segment in source.segments)
            if longest < needed * self.geometry.sample_rate:
                raise ConfigurationError(
                    f"data.validation_length: {self.validation_length:g} s are "
                    f"{STRETCHES} stretches of {needed:g} s; expected a segment of "
                    f"{source.ifo} as long under 'valid/' in {self.background}, found "
                    f"{longest / self.geometry.sample_rate:g} s at most"
                )

    @property
    def simulated(self) -> bool:
        """Whether any of the noise is simulated."""
        stretches = [
            source for split in self.recorded.values() for source in split.values()
        ]
        return not stretches or any(source.simulated for source in stretches)

    def share_size(self, processes: int) -> int:
        """Windows of a batch for each of the training's processes.

        Raises:
            ConfigurationError: The batch cannot be divided among them.
        """
        size = self.windows.batch_size
        if size < 1 or size % (2 * processes):
            raise ConfigurationError(
                f"data.windows.batch_size: expected a multiple of {2 * processes}, two "
                f"for each process, found {size}"
            )
        return size // processes

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the training's present step on.

        Raises:
            ModelError: There is no room for the stock.
        """
        trainer = self.trainer
        assert trainer is not None
        span = Span(lambda: trainer.global_step, self.validate_every, self.steps)
        # A training that has ended draws nothing, and its stock is gone.
        if not self.stock_batches or trainer.global_step >= self.steps:
            return self._window_loader(self.steps, span)
        stock = StockStream(
            self._make_stock(),
            self.share_size(trainer.world_size),
            self.steps,
            (self.seed, trainer.global_rank),
            self.stock_flattening,
        )
        return DataLoader(stock, batch_size=None, sampler=span)

    def _window_loader(
        self, batches: int, sampler: Sampler[int] | None = None
    ) -> DataLoader[Any]:
        """Batches of windows as they are made."""
        trainer = self.trainer
        assert trainer is not None
        on_gpu = trainer.strategy.root_device.type == "cuda"
        stream = WindowStream(
            self.geometry,
            replace(self.windows, batch_size=self.share_size(trainer.world_size)),
            batches,
            (self.seed, trainer.global_rank),
            self.recorded.get("train"),
            trainer.strategy.root_device if on_gpu else "cpu",
        )
        workers = 0 if on_gpu else self.workers
        return DataLoader(
            stream,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=workers > 0 and sampler is not None,
        )

    def _make_stock(self) -> Path:
        """Make this process's stock, unless it is there already, and say where."""
        trainer = self.trainer
        assert trainer is not None and trainer.lightning_module is not None
        network = trainer.lightning_module.network
        assert isinstance(network, MatchedNetwork)
        folder = Path(self.folder) / STOCKS / str(trainer.global_rank)
        source: dict[str, Any] = {
            "geometry": self.geometry.to_json(),
            "windows": asdict(self.windows),
            "batches": self.stock_batches,
            "share": self.share_size(trainer.world_size),
            "seed": [self.seed, trainer.global_rank],
            "background": None if self.background is None else probe(self.background),
        }
        make_stock(
            folder,
            network,
            self._window_loader(self.stock_batches),
            self.stock_batches,
            identity(network, source),
        )
        return folder

    def val_dataloader(self) -> DataLoader[Any]:
        """One batch: the deployed validation itself, drawn once by the first process.

        The others' is None.
        """
        from chirpwatch.train.evaluation.deployment import (
            SELECTION_SEED,
            DeployedValidation,
        )

        assert self.trainer is not None
        only: Any = [None]
        if self.trainer.is_global_zero:
            validation = DeployedValidation(
                self.geometry,
                self.windows,
                SELECTION_SEED,
                length=self.validation_length,
                sources=self.recorded.get("valid"),
                **self.validation,
            )
            only = [validation]
        # Without a collation that has no use for either.
        return DataLoader(only, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(value: Any) -> Any:
    return value
