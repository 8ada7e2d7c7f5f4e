"""Sizes, the state's layout and a request's counts, shared by several models."""

from dataclasses import dataclass
from typing import Self

from chirpwatch.export import whitening
from chirpwatch.export.graph import (
    Graph,
    Value,
)
from chirpwatch.geometry import Geometry

SCALE = 2.0**66
"""Factor for strain before it is squared, as the square of 1e-21 underflows float32.

It is about 1e20, and a power of two, so that the product is exact.
"""

BLOCK_SIZE = 64
"""Whitened samples in a block; a block has one Toeplitz matrix, and so one filter."""


@dataclass(frozen=True)
class Layout:
    """Sizes that follow from the geometry, and the layout of the snapshotter's state.

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
        """Periodograms in the state, a whole number of groups."""
        return self.groups * self.group_size

    @property
    def filter_values(self) -> int:
        """Number of values that describe a filter."""
        return whitening.filter_values(self.geometry)

    @property
    def overlap_size(self) -> int:
        """Whitened samples in a request's first kernel from before the request."""
        return self.geometry.kernel_size - self.geometry.stride_size

    @property
    def history_size(self) -> int:
        """Strain samples from before a request that its whitening needs.

        They are the overlap; half a filter twice, as the filter's output lags by one
        half and the filter extends backwards by the other; and one block, as each
        detector has its own grid of blocks. The sum is a whole number of blocks.
        """
        return self.overlap_size + self.geometry.filter_size + BLOCK_SIZE

    @property
    def tail_size(self) -> int:
        """Strain samples in the state, for each row and detector."""
        return max(self.history_size, self.geometry.fft_size)

    @property
    def ifos(self) -> int:
        """Number of detectors."""
        return len(self.geometry.ifos)

    @property
    def filters_at(self) -> int:
        """Index in the state where the filters begin, after the positions' digits.

        Each detector has two positions of two digits.
        """
        return 4 * self.ifos

    def periodograms_at(self, ifo: int) -> int:
        """Index in the state where a detector's periodograms begin.

        For ``ifo`` equal to the number of detectors, it is where all of them end.
        """
        begin = self.filters_at + 2 * self.ifos * self.filter_values
        return begin + ifo * self.periodograms * self.bins


@dataclass(frozen=True)
class Counts:
    """One detector's counts at a request: edges of the graph, int64 [1] each.

    All are counted from the start of the detector's data.

    Attributes:
        samples_before: Strain samples before the request; negative if the data begin
            after its start.
        periodograms_before: Periodograms that ended before the request.
        periodograms_after: Periodograms that ended by the end of the request.
        psds_before: PSDs that fell due before the request.
        psds_due: PSDs that fall due in the request.
    """

    samples_before: Value
    periodograms_before: Value
    periodograms_after: Value
    psds_before: Value
    psds_due: Value

    @classmethod
    def of(cls, graph: Graph, geometry: Geometry, before: Value, size: Value) -> Self:
        """Compute the counts for a request.

        Args:
            graph: The graph to extend.
            geometry: The analysis.
            before: Samples of the detector's data before the request, int64 [1].
            size: Samples in the request, int64 [1].
        """
        after = graph.Add(before, size)

        def complete(samples: Value, interval_size: int) -> Value:
            """Number of complete intervals in a number of samples, at least 0."""
            # Division rounds negative numbers towards zero; all of them count as zero.
            result: str = graph.Max(graph.Div(samples, interval_size), [0])
            return result

        hop_size, refresh_size = geometry.fft_size // 2, geometry.psd_refresh_size
        # A periodogram is two hops long.
        periodograms_before, periodograms_after = (
            graph.Max(graph.Sub(complete(samples, hop_size), 1), [0])
            for samples in (before, after)
        )
        psds_before = complete(before, refresh_size)
        psds_due = graph.Sub(complete(after, refresh_size), psds_before)
        return cls(
            before, periodograms_before, periodograms_after, psds_before, psds_due
        )

    def filter_index(self, graph: Graph, refresh: Value) -> Value:
        """Index in a request's ``filters`` of the filter made by a given PSD update.

        Args:
            graph: The graph to extend.
            refresh: Ordinal of the PSD update, from 1 at the detector's first; 0 is
                before it, and gives the first filter. Any shape.
        """
        # The first two filters are from before the request.
        index = graph.Add(graph.Sub(graph.Max(refresh, [1]), self.psds_before), 1)
        nearest: Value = graph.Min(index, graph.Add(self.psds_due, 1))
        return nearest
