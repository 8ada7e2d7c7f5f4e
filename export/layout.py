"""Sizes and positions shared by the snapshotter and the models downstream."""

from dataclasses import dataclass
from typing import Self

from chirpwatch.export import whitening
from chirpwatch.export.graph import (
    Graph,
    Value,
)
from chirpwatch.geometry import Geometry

SCALE = 2.0**66
"""Factor that strain is multiplied by first: the square of 1e-21 underflows float32.

It is about 1e20, and a power of two, so that the product is exact.
"""

BLOCK_SIZE = 64
"""Whitened samples that share one Toeplitz matrix, and therefore one filter."""


@dataclass(frozen=True)
class Layout:
    """Sizes shared by the snapshotter and the preprocessor.

    The state consists of these parts, each for all detectors in turn: the positions
    where the sequence began and where the next request must begin (two digits each),
    the two newest filters, the periodograms, and each row's newest strain.

    Attributes:
        geometry: The analysis.
    """

    geometry: Geometry

    @property
    def hop_size(self) -> int:
        """Samples between the starts of successive periodograms."""
        return self.geometry.fft_size // 2

    @property
    def bins(self) -> int:
        """Frequency bins in a periodogram."""
        return self.geometry.fft_size // 2 + 1

    @property
    def group_size(self) -> int:
        """Periodograms in a group: those that end between two PSDs."""
        return self.geometry.psd_refresh_size // self.hop_size

    @property
    def groups(self) -> int:
        """Groups of periodograms in a full PSD."""
        return self.geometry.psd_size // self.geometry.psd_refresh_size

    @property
    def periodograms(self) -> int:
        """Periodograms that the state keeps, in whole groups."""
        return self.groups * self.group_size

    @property
    def filter_values(self) -> int:
        """Number of values that describe a filter."""
        return whitening.filter_values(self.geometry)

    @property
    def overlap_size(self) -> int:
        """Whitened samples from before a request in its first kernel."""
        return self.geometry.kernel_size - self.geometry.stride_size

    @property
    def history_size(self) -> int:
        """Strain samples from before a request that its whitening needs, whole blocks.

        These are the overlap; half a filter on either side, as the filter's output lags
        by one half and the filter reaches back by the other; and one block, as each
        detector has its own grid of blocks.
        """
        return self.overlap_size + self.geometry.filter_size + BLOCK_SIZE

    @property
    def tail_size(self) -> int:
        """Strain samples that the state keeps for each row."""
        return max(self.history_size, self.geometry.fft_size)

    @property
    def ifos(self) -> int:
        """Number of detectors."""
        return len(self.geometry.ifos)

    @property
    def filters_at(self) -> int:
        """Index of the first filter, after each ifo's two positions of two digits."""
        return 4 * self.ifos

    def periodograms_at(self, ifo: int) -> int:
        """Index at which a detector's periodograms begin in the state.

        For ``ifo`` equal to the number of detectors, it is where the last ones end.
        """
        begin = self.filters_at + 2 * self.ifos * self.filter_values
        return begin + ifo * self.periodograms * self.bins


@dataclass(frozen=True)
class Turn:
    """One detector's counts at a request: edges of the graph, int64 [1] each.

    Attributes:
        before: Samples of its data before the request; negative before they begin.
        done: Periodograms whose segments ended before the request.
        ready: Periodograms whose segments ended by the end of the request.
        first: PSDs that fell due before the request.
        due: PSDs that fall due in the request.
    """

    before: Value
    done: Value
    ready: Value
    first: Value
    due: Value

    @classmethod
    def of(cls, graph: Graph, geometry: Geometry, before: Value, size: Value) -> Self:
        """Compute the counts from the samples before a request and those in it."""
        after = graph.Add(before, size)

        def whole(samples: Value, length_size: int) -> Value:
            # Division rounds negative numbers towards zero; all of them count as zero.
            result: str = graph.Max(graph.Div(samples, length_size), [0])
            return result

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
        """Index, in a request's filters, of the newest one after some refreshes.

        Args:
            graph: The graph to extend.
            refresh: Refreshes since the detector's data began, any shape.
        """
        # Two filters are older than the request. Before the first PSD, its own is used.
        index = graph.Add(graph.Sub(graph.Max(refresh, [1]), self.first), 1)
        nearest: Value = graph.Min(index, graph.Add(self.due, 1))
        return nearest
