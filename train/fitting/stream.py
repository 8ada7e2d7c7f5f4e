"""Training batches and their data module.

A batch depends on the seed, the process and its index alone. A training can therefore
resume at any step, and any number of workers makes the same batches.
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
"""Subfolder of the training's folder with one stock per process, until it ends."""

PREFETCH = 16
"""Batches that each worker makes ahead."""

GEOMETRY, WINDOWS = Geometry(), WindowSettings()


class WindowStream(Dataset[Batch]):
    """Finite stream of simulated training batches, whose signals grow fainter.

    Args:
        geometry: Kernel, PSD and filter lengths.
        settings: Noise, signals and glitches of the windows.
        batches: Length of the stream.
        seed: Seed of all draws.
        sources: Strain of each detector; if None, simulated noise of the settings'
            noise curves.
        device: Device on which windows are made.
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
        """Make a batch.

        The smallest SNR falls linearly from ``first_snr`` to ``last_snr`` over the
        first half of the stream. Batches in sequence are the fastest, see
        ``WindowMaker.batch``.

        Raises:
            IndexError: ``index`` is outside the stream.
        """
        if not 0 <= index < self.batches:
            raise IndexError(index)
        settings = self.settings
        if self._maker is None:
            # Made on first use, so that each worker makes its own.
            self._maker = WindowMaker(
                self.geometry, settings, self.seed, self.sources, self.device
            )
        progress = min(1.0, 2 * index / self.batches)
        span = settings.last_snr - settings.first_snr
        return self._maker.batch(index, settings.first_snr + span * progress)


class Span(Sampler[int]):
    """Sampler of one epoch's batch indices, from the training's current step on.

    Args:
        position: Returns the current step; called at the start of each epoch.
        size: Batches in an epoch.
        end: Batches in the training; no index reaches it.
    """

    def __init__(self, position: Callable[[], int], size: int, end: int) -> None:
        self.position, self.size, self.end = position, size, end

    def __iter__(self) -> Iterator[int]:
        """Consecutive indices from the current step on."""
        first = self.position()
        return iter(range(first, min(first + self.size, self.end)))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.size


class WindowData(lightning.LightningDataModule):
    """Data of a training: windows made while the network trains, and its validation.

    When training on a CPU, worker processes make the windows. When training on a GPU,
    the training process makes them on the GPU.

    Args:
        geometry: Kernel, PSD and filter lengths.
        windows: Noise, signals and glitches of the windows. A distributed training
            divides ``batch_size`` among its processes.
        background: HDF5 file of recorded strain to train and validate on; if None,
            noise is simulated.
        workers: Worker processes per training process; 0 makes the windows between the
            steps.
        stock_batches: Batches of windows whose frontend outputs are computed once and
            drawn from at every step, see ``train.fitting.stock``. Only for trainings
            with frozen frontends; 0 makes new windows at each step.
        stock_flattening: How far draws from the stock even out which group of templates
            matches best, 0 to 1, see ``StockStream``.
        validation_length: Background strain of the deployed validation, s.
        validation_slides: Its timeslides, for networks with a single-detector frontend.
        validation_plain_slides: Its timeslides for any other network, which must run
            again for each slide; 0 leaves out the efficiency at false-alarm rates.
        validation_injections: Mergers injected into further strain.
        validation_windows: Single windows without a signal.
        steps: Steps of the training.
        validate_every: Steps between two validations.
        seed: Seed of the training's windows.
        folder: Folder of the training; it holds the stock.

    Raises:
        ConfigurationError: A stock setting is out of range, or the windows' smallest
            SNR changes during the training, which a stock cannot follow.
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
                "data.windows: expected the same first_snr and last_snr with "
                "data.stock_batches, since a stock is drawn from in random order, "
                f"found {windows.first_snr:g} and {windows.last_snr:g}"
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
        """Open and check the recorded strain, if any.

        Raises:
            StrainError: The strain cannot be used for training.
            ConfigurationError: No segment is long enough for the validation.
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
        """Refuse strain without a segment as long as a validation stretch."""
        from chirpwatch.train.evaluation.deployment import STRETCHES

        needed = self.validation_length / STRETCHES
        for source in sources.values():
            longest = max(segment.size for segment in source.segments)
            if longest < needed * self.geometry.sample_rate:
                raise ConfigurationError(
                    f"data.validation_length: {self.validation_length:g} s are "
                    f"{STRETCHES} stretches of {needed:g} s; expected a segment of "
                    f"{source.ifo} as long under 'valid/' in {self.background}, found "
                    f"{longest / self.geometry.sample_rate:g} s at most; ask for less "
                    "validation strain"
                )

    @property
    def simulated(self) -> bool:
        """Whether any of the training's noise is simulated."""
        stretches = [
            source for split in self.recorded.values() for source in split.values()
        ]
        return not stretches or any(source.simulated for source in stretches)

    def share_size(self, processes: int) -> int:
        """Batch size in each process of a distributed training.

        Raises:
            ConfigurationError: The batch cannot be divided evenly among the processes.
        """
        size = self.windows.batch_size
        if size < 1 or size % (2 * processes):
            raise ConfigurationError(
                f"data.windows.batch_size: expected a multiple of {2 * processes} (a "
                f"window with and one without a merger per process), found {size}"
            )
        return size // processes

    def train_dataloader(self) -> DataLoader[Any]:
        """Loader of the batches from the training's current step on.

        Raises:
            ModelError: The stock cannot be written.
        """
        trainer = self.trainer
        assert trainer is not None
        span = Span(lambda: trainer.global_step, self.validate_every, self.steps)
        # A completed training draws no batches, and its stock is deleted.
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
        """Loader of newly made windows; by default in sequence, from the first on."""
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
        """Make this process's stock, unless it exists, and return its folder."""
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
        """Loader of one item: the ``DeployedValidation``, made by the first process.

        The item is None in all other processes.
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
        # The item is passed on as it is: it is no tensor to convert.
        return DataLoader(only, batch_size=None, collate_fn=_unchanged)


def _unchanged(value: Any) -> Any:
    return value
