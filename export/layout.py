"""Sizes and positions that the snapshotter and the models behind it agree on."""

from dataclasses import dataclass
from typing import Self

from chirpwatch.geometry import Geometry
from export import whitening
from export.graph import Graph, Value

SCALE = 2.0**66
"""Strain is multiplied by this first: the square of 1e-21 underflows float32.

About 1e20; a power of two, so that the product is exact.
"""

BLOCK_SIZE = 64
"""Whitened samples that share one Toeplitz matrix, and so one filter."""


@dataclass(frozen=True)
class Layout:
    """Sizes that the snapshotter and the preprocessor agree on.

    The state holds, in this order, and each for all detectors in turn: the positions
    where the sequence began and where the next request must begin (two digits each),
    the two newest filters, the periodograms, and the newest strain of each row.

    Attributes:
        geometry: The analysis.
    """

    geometry: Geometry

    @property
    def hop_size(self) -> int:
        """Samples from one periodogram's start to the next one's."""
        return self.geometry.fft_size // 2

    @property
    def bins(self) -> int:
        """Frequencies of a periodogram."""
        return self.geometry.fft_size // 2 + 1

    @property
    def group_size(self) -> int:
        """Periodograms that end between two PSDs."""
        return self.geometry.psd_refresh_size // self.hop_size

    @property
    def groups(self) -> int:
        """Such groups in a full PSD."""
        return self.geometry.psd_size // self.geometry.psd_refresh_size

    @property
    def periodograms(self) -> int:
        """Periodograms that the state keeps: those of whole groups."""
        return self.groups * self.group_size

    @property
    def filter_values(self) -> int:
        """Values that describe a filter."""
        return whitening.filter_values(self.geometry)

    @property
    def overlap_size(self) -> int:
        """Whitened samples before a request that its first score looks back at."""
        return self.geometry.kernel_size - self.geometry.stride_size

    @property
    def history_size(self) -> int:
        """Samples of strain before a request that its whitening needs, whole blocks.

        Beside the overlap, the filter's half on either side: its output lags by one
        half, and reaches back by the other. And a block, as blocks lie on a grid of
        their own for each detector.
        """
        return self.overlap_size + self.geometry.filter_size + BLOCK_SIZE

    @property
    def tail_size(self) -> int:
        """Samples of strain that the state keeps for each row."""
        return max(self.history_size, self.geometry.fft_size)

    @property
    def ifos(self) -> int:
        """Detectors."""
        return len(self.geometry.ifos)

    @property
    def filters_at(self) -> int:
        """Where the state's filters begin, after two positions of two digits."""
        return 4 * self.ifos

    def periodograms_at(self, ifo: int) -> int:
        """Where the state's periodograms of a detector begin; those of the last end."""
        begin = self.filters_at + 2 * self.ifos * self.filter_values
        return begin + ifo * self.periodograms * self.bins


@dataclass(frozen=True)
class Turn:
    """Where one detector stands at a request: edges of the graph, int64 [1] each.

    Attributes:
        before: Samples of its data before the request; negative before they begin.
        done: Periodograms whose segment ended before the request.
        ready: Those that ended by its end.
        first: PSDs that fell due before the request.
        due: PSDs that fall due in it.
    """

    before: Value
    done: Value
    ready: Value
    first: Value
    due: Value

    @classmethod
    def of(cls, graph: Graph, geometry: Geometry, before: Value, size: Value) -> Self:
        """Count from the samples before a request and those in it."""
        after = graph.Add(before, size)

        def whole(samples: Value, length_size: int) -> Value:
            # Division of what is negative rounds towards zero; none of it counts.
            return graph.Max(graph.Div(samples, length_size), [0])

        hop_size, refresh_size = geometry.fft_size // 2, geometry.psd_refresh_size
        # A segment is two hops long.
        done, ready = (
            graph.Max(graph.Sub(whole(samples, hop_size), 1), [0])
            for samples in (before, after)
        )
        first = whole(before, refresh_size)
        due = graph.Sub(whole(after, refresh_size), first)
        return cls(before, done, ready, first, due)

    def filter_index(self, graph: Graph, refresh: Value) -> Value:
        """Index among a request's filters of the newest one after some refreshes.

        Args:
            graph: Where nodes are added.
            refresh: Refreshes since the detector's data began, any shape.
        """
        # Two filters are older than the request; before the first, the first serves.
        index = graph.Add(graph.Sub(graph.Max(refresh, [1]), self.first), 1)
        nearest: Value = graph.Min(index, graph.Add(self.due, 1))
        return nearest
