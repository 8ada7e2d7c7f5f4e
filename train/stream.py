"""The stream of training batches, from loud signals to faint ones."""

from collections.abc import Iterator

from torch.utils.data import IterableDataset

from chirpwatch.geometry import Geometry
from train.windows import Batch, WindowMaker, WindowSettings


class WindowStream(IterableDataset[Batch]):
    """A finite stream of batches, from loud signals to faint ones.

    Args:
        geometry: Kernel, PSD and filter lengths.
        settings: What the windows hold.
        batches: Length of the stream.
        seed: Seed of everything that is drawn.
    """

    def __init__(
        self, geometry: Geometry, settings: WindowSettings, batches: int, seed: int
    ) -> None:
        self.geometry, self.settings = geometry, settings
        self.batches, self.seed = batches, seed

    def __len__(self) -> int:
        """Batches in the stream."""
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        """Make the batches; the smallest SNR falls over the first half of them."""
        settings = self.settings
        maker = WindowMaker(self.geometry, settings, self.seed)
        for index in range(self.batches):
            progress = min(1.0, 2 * index / self.batches)
            span = settings.last_snr - settings.first_snr
            yield maker.batch(index, settings.first_snr + span * progress)
