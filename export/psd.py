"""Periodograms, PSDs and whitening filters, as parts of the snapshotter's graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from chirpwatch.export import (
    fourier,
    whitening,
)
from chirpwatch.export.graph import (
    Graph,
    Value,
)
from chirpwatch.export.layout import (
    Counts,
    Layout,
)
from chirpwatch.export.median import (
    sliding_medians,
    unseen,
)
from chirpwatch.train.data.whitening import (
    median_bias,
    whitened_variance,
)

PERIODOGRAMS_PER_TRIP = 16
"""Periodograms computed in one iteration of a loop, which bounds the memory."""

PSDS_PER_TRIP = 32
"""PSDs computed in one iteration, likewise."""


def periodograms(graph: Graph, layout: Layout, strain: Value, counts: Counts) -> Value:
    """Compute one detector's periodograms that end in a request: [periodograms, bins].

    If samples are not finite, or a run of them is zero, as for a detector that is off,
    the periodogram has infinite power in every bin.

    Args:
        graph: The graph to extend.
        layout: Sizes.
        strain: The detector's scaled strain in row 0, [tail + n].
        counts: How many samples, periodograms and PSDs the detector had before the
            request, and has after it.
    """
    geometry = layout.geometry
    size, hop = geometry.fft_size, layout.hop_size
    window = np.hanning(size + 1)[:-1]
    gain = np.full(layout.bins, 2 / (geometry.sample_rate * (window**2).sum()))
    gain[[0, -1]] /= 2
    block_size = fourier.factors(size)[1]

    new = graph.Sub(counts.periodograms_after, counts.periodograms_before)
    trips = graph.Div(graph.Add(new, PERIODOGRAMS_PER_TRIP - 1), PERIODOGRAMS_PER_TRIP)

    def transform(body: Graph, trip: Value) -> Value:
        begin = body.Mul(body.Unsqueeze(trip, [0]), PERIODOGRAMS_PER_TRIP)
        stop = body.Min(body.Add(begin, PERIODOGRAMS_PER_TRIP), new)
        ordinals = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        starts = body.Mul(body.Add(ordinals, counts.periodograms_before), hop)
        starts = body.Add(body.Sub(starts, counts.samples_before), layout.tail_size)
        samples = body.Add(body.Unsqueeze(starts, [1]), np.arange(size)[None])
        pieces = body.Gather(strain, samples)
        largest = body.ReduceMax(
            body.Reshape(body.Abs(pieces), [0, -1, block_size]), [2], keepdims=0
        )
        real = body.And(body.Greater(largest, 0.0), body.Less(largest, float("inf")))
        real = body.ReduceMin(body.Cast(real, to=TensorProto.INT64), [1])
        real = body.Cast(real, to=TensorProto.BOOL)
        # Recorded strain is loudest below 10 Hz, by four orders of magnitude; in
        # float32, the rounding errors would leak into the quiet band (0.6 % of the PSD
        # around GW150914).
        pieces = body.Cast(pieces, to=TensorProto.DOUBLE)
        pieces = body.Sub(pieces, body.ReduceMean(pieces, [1]))
        pieces = body.Mul(pieces, body.constant(window))
        power = fourier.power(body, pieces, size)
        power = body.Mul(body.Cast(power, to=TensorProto.FLOAT), gain)
        result: str = body.Where(real, power, float("inf"))
        return result

    nothing = graph.ConstantOfShape([0, layout.bins])
    return graph.collect(graph.Squeeze(trips), nothing, 0, transform)


@dataclass(frozen=True)
class OldPeriodograms:
    """One detector's periodograms from before a request, read from the state.

    A sequence's first request has none; placeholders take their place.

    Attributes:
        layout: Sizes.
        ifo: Index of the detector.
        is_first: 1 for a sequence's first request, else 0, int64 [1].
    """

    layout: Layout
    ifo: int
    is_first: Value

    def _values(self, graph: Graph, first: Value) -> Value:
        """The state's periodograms from index ``first`` on, flattened: [values]."""
        layout = self.layout
        begin, stop = (layout.periodograms_at(self.ifo + i) for i in range(2))
        start = graph.Add(graph.Mul(first, layout.bins), begin)
        values: Value = graph.cut("state", start, [stop], axis=0)
        return values

    def _unseen(self, graph: Graph, first: Value) -> Value:
        """Placeholders from index ``first`` on, see ``unseen``: [rows, bins]."""
        layout = self.layout
        pattern = np.tile(unseen(layout.group_size), layout.groups)
        # A group ends where a PSD falls due. So the first group's oldest periodogram
        # would begin before the data, and is a placeholder, too.
        rows = graph.value(np.roll(pattern, -1)[:, None])
        rows = graph.cut(rows, first, None, axis=0)
        shape = graph.Concat(graph.size(rows, 0), [layout.bins], axis=0)
        values: Value = graph.Expand(rows, shape)
        return values

    def _firsts(self, graph: Graph, dropped: Value) -> tuple[Value, Value]:
        """First indices of old periodograms and of placeholders; one range is empty."""
        count = self.layout.periodograms
        absent = graph.Mul(self.is_first, count)
        unseen_first = graph.Add(graph.Sub([count], absent), dropped)
        return graph.Add(absent, dropped), unseen_first

    def all(self, graph: Graph) -> Value:
        """All old periodograms, oldest first, [periodograms, bins]."""
        first, unseen_first = self._firsts(graph, graph.value([0]))
        values = graph.Reshape(self._values(graph, first), [-1, self.layout.bins])
        joined: Value = graph.Concat(self._unseen(graph, unseen_first), values, axis=0)
        return joined

    def newest(self, graph: Graph, new: Value) -> list[Value]:
        """Periodograms for the next state, from old and ``new`` ones, flattened.

        The parts are to be concatenated; some may be empty.
        """
        count = self.layout.periodograms
        first, unseen_first = self._firsts(graph, graph.size(new, 0))
        newest = graph.cut(new, [-count], None, axis=0)
        return [
            graph.Reshape(self._unseen(graph, unseen_first), [-1]),
            self._values(graph, graph.Min(first, [count])),
            graph.Reshape(newest, [-1]),
        ]


def refreshes(
    graph: Graph,
    layout: Layout,
    old: OldPeriodograms,
    new: Value,
    counts: Counts,
    start: Value,
) -> tuple[Value, Value]:
    """Compute one detector's PSDs that fall due in a request, and their filters.

    Args:
        graph: The graph to extend.
        layout: Sizes.
        old: Periodograms from before the request.
        new: Periodograms that ended in the request, [periodograms, bins].
        counts: How many samples, periodograms and PSDs the detector had before the
            request, and has after it.
        start: Samples of its data before the sequence began, int64 [1].

    Returns:
        PSDs [due, bins] and whitening filters [due, values].
    """
    geometry = layout.geometry
    group, groups = layout.group_size, layout.groups
    biases, variances = _corrections(layout)

    def refresh(body: Graph, trip: Value) -> Value:
        # PSD k, counted from the start of the data, uses the groups before it.
        begin = body.Mul(body.Unsqueeze(trip, [0]), PSDS_PER_TRIP)
        stop = body.Min(body.Add(begin, PSDS_PER_TRIP), counts.psds_due)
        ordinals = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        ordinals = body.Add(body.Add(ordinals, counts.psds_before), 1)
        rows = body.Concat(old.all(body), new, axis=0)
        # `rows` begins with periodogram `origin`, and the window of PSD k with
        # periodogram (k - groups) * group - 1.
        origin = body.Sub(counts.periodograms_before, layout.periodograms)
        first, stop_row = (
            body.Sub(
                body.Sub(body.Mul(body.Add(counts.psds_before, x), group), 1), origin
            )
            for x in (body.Sub(begin, groups - 1), stop)
        )
        members = body.cut(rows, first, stop_row, axis=0)
        medians = sliding_medians(body, members, layout.bins, group, groups)
        ages = body.Sub(body.Min(ordinals, groups), 1)
        bias, variance = (
            body.Unsqueeze(body.Gather(table.astype(np.float32), ages), [1])
            for table in (biases, variances)
        )
        psd = body.Div(medians, bias)
        spoilt = _spoilt(body, layout, members, first, stop_row, origin)
        # Nor may a PSD use periodograms from before the sequence began.
        oldest = body.Mul(body.Sub(ordinals, groups), geometry.psd_refresh_size)
        in_sequence = body.LessOrEqual(start, body.Max(oldest, [0]))
        unspoilt = body.Less(body.Reshape(spoilt, [-1]), 0.5)
        usable = body.And(unspoilt, in_sequence)
        # Noise is whitened to unit variance, see `whitened_variance`.
        filters = whitening.design(body, geometry, body.Mul(psd, variance), usable)
        result: str = body.Concat(psd, filters, axis=1)
        return result

    trips = graph.Div(graph.Add(counts.psds_due, PSDS_PER_TRIP - 1), PSDS_PER_TRIP)
    nothing = graph.ConstantOfShape([0, layout.bins + layout.filter_values])
    both = graph.collect(graph.Squeeze(trips), nothing, 0, refresh)
    psd = graph.cut(both, [0], [layout.bins], axis=1)
    return psd, graph.cut(both, [layout.bins], None, axis=1)


def _corrections(layout: Layout) -> tuple[NDArray[Any], NDArray[Any]]:
    """Median bias and whitened variance of PSDs of 1 to ``groups`` groups, [groups].

    A PSD is the median of an odd number of half-overlapping periodograms: one is
    missing, as the first group's oldest one would begin before the data.
    """
    geometry = layout.geometry
    group, groups = layout.group_size, layout.groups
    numbers = range(group - 1, group * groups, group)
    variances = [
        whitened_variance(number, geometry.filter_size, geometry.fft_size)
        for number in numbers
    ]
    return np.array([median_bias(number) for number in numbers]), np.array(variances)


def _spoilt(
    graph: Graph,
    layout: Layout,
    members: Value,
    first: Value,
    stop: Value,
    origin: Value,
) -> Value:
    """Compute whether PSDs use a periodogram with infinite power: 1 or 0, [1, 1, psds].

    The placeholders before a detector's first periodogram do not count.

    Args:
        graph: The graph to extend.
        layout: Sizes.
        members: Periodograms in the PSDs' windows, [periodograms, bins].
        first: Row of the first one, int64 [1].
        stop: Row after the last one, int64 [1].
        origin: Ordinal of row 0, counted from the start of the data, int64 [1].
    """
    group, groups = layout.group_size, layout.groups
    power = graph.Reshape(graph.cut(members, [0], [1], axis=1), [-1])
    rows = graph.Range(graph.Squeeze(first), graph.Squeeze(stop), 1)
    is_real = graph.GreaterOrEqual(graph.Add(rows, origin), [0])
    spoilt = graph.And(is_real, graph.Equal(power, float("inf")))
    spoilt = graph.cut(graph.Cast(spoilt, to=TensorProto.FLOAT), [1], None, axis=0)
    pooled: Value = graph.MaxPool(
        graph.Reshape(spoilt, [1, 1, -1]),
        kernel_shape=[group * groups - 1],
        strides=[group],
    )
    return pooled
