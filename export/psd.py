"""Periodograms, and the PSDs and whitening filters computed from them."""

from dataclasses import dataclass

import numpy as np
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
    Layout,
    Turn,
)
from chirpwatch.export.median import (
    sliding_medians,
    unseen,
)
from chirpwatch.train.data.whitening import (
    median_bias,
    whitened_variance,
)

SEGMENTS = 16
"""Periodograms that are computed at a time, which bounds the memory."""

REFRESHES = 32
"""PSDs that are computed at a time, for the same reason."""


def periodograms(graph: Graph, layout: Layout, strain: Value, turn: Turn) -> Value:
    """One detector's periodograms that end in this request: [segments, bins].

    A segment with samples that are not finite, or with a stretch of zeros, as sent by a
    detector that is off, gets infinite power in every bin.

    Args:
        graph: The graph to extend.
        layout: Sizes.
        strain: The detector's scaled strain in row 0, [tail + n].
        turn: The detector's counts.
    """
    geometry = layout.geometry
    size, hop = geometry.fft_size, layout.hop_size
    window = np.hanning(size + 1)[:-1]
    gain = np.full(layout.bins, 2 / (geometry.sample_rate * (window**2).sum()))
    gain[[0, -1]] /= 2
    block_size = fourier.factors(size)[1]

    new = graph.Sub(turn.ready, turn.done)
    trips = graph.Div(graph.Add(new, SEGMENTS - 1), SEGMENTS)

    def transform(body: Graph, trip: Value) -> Value:
        begin = body.Mul(body.Unsqueeze(trip, [0]), SEGMENTS)
        stop = body.Min(body.Add(begin, SEGMENTS), new)
        ordinals = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        starts = body.Mul(body.Add(ordinals, turn.done), hop)
        starts = body.Add(body.Sub(starts, turn.before), layout.tail_size)
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

    Attributes:
        layout: Sizes.
        ifo: Index of the detector.
        fresh: 1 for a sequence's first request, which has none, else 0, int64 [1].
    """

    layout: Layout
    ifo: int
    fresh: Value

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
        # Groups end at PSDs; the first group's oldest segment has no data.
        rows = graph.value(np.roll(pattern, -1)[:, None])
        rows = graph.cut(rows, first, None, axis=0)
        shape = graph.Concat(graph.size(rows, 0), [layout.bins], axis=0)
        values: Value = graph.Expand(rows, shape)
        return values

    def _firsts(self, graph: Graph, dropped: Value) -> tuple[Value, Value]:
        """First indices of old periodograms and of placeholders; one range is empty."""
        count = self.layout.periodograms
        absent = graph.Mul(self.fresh, count)
        unseen_first = graph.Add(graph.Sub([count], absent), dropped)
        return graph.Add(absent, dropped), unseen_first

    def all(self, graph: Graph) -> Value:
        """All old periodograms, [periodograms, bins]."""
        first, unseen_first = self._firsts(graph, graph.value([0]))
        values = graph.Reshape(self._values(graph, first), [-1, self.layout.bins])
        joined: Value = graph.Concat(self._unseen(graph, unseen_first), values, axis=0)
        return joined

    def newest(self, graph: Graph, new: Value) -> list[Value]:
        """Parts of the next state: the newest of old and ``new`` ones, flattened."""
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
    turn: Turn,
    begun: Value,
) -> tuple[Value, Value]:
    """One detector's PSDs due in a request, [due, bins]; their filters, [due, values].

    Args:
        graph: The graph to extend.
        layout: Sizes.
        old: Periodograms from before the request.
        new: Periodograms that ended in the request, [segments, bins].
        turn: The detector's counts.
        begun: Samples of its data before the sequence began, int64 [1].
    """
    geometry = layout.geometry
    group, groups = layout.group_size, layout.groups
    # A PSD is the median of an odd number of half-overlapping segments.
    whole_counts = range(group - 1, group * groups, group)
    biases, variances = (
        np.array([factor(count) for count in whole_counts])
        for factor in (
            median_bias,
            lambda count: whitened_variance(
                count, geometry.filter_size, geometry.fft_size
            ),
        )
    )

    def refresh(body: Graph, trip: Value) -> Value:
        # Refresh k, counted from the start of the data, uses the groups before it.
        begin = body.Mul(body.Unsqueeze(trip, [0]), REFRESHES)
        stop = body.Min(body.Add(begin, REFRESHES), turn.due)
        ordinals = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        ordinals = body.Add(body.Add(ordinals, turn.first), 1)
        rows = body.Concat(old.all(body), new, axis=0)
        # `rows` begins with segment done - periodograms, and the window of refresh k
        # with segment (k - groups) * group - 1.
        origin = body.Sub(turn.done, layout.periodograms)
        from_, to = (
            body.Sub(body.Sub(body.Mul(body.Add(turn.first, x), group), 1), origin)
            for x in (body.Sub(begin, groups - 1), stop)
        )
        members = body.cut(rows, from_, to, axis=0)
        middle = sliding_medians(body, members, layout.bins, group, groups)
        ages = body.Sub(body.Min(ordinals, groups), 1)
        bias, variance = (
            body.Unsqueeze(body.Gather(table.astype(np.float32), ages), [1])
            for table in (biases, variances)
        )
        psd = body.Div(middle, bias)

        # A segment of infinite power spoils every PSD that uses it; the placeholders
        # for segments before the first do not.
        power = body.Reshape(body.cut(members, [0], [1], axis=1), [-1])
        segments = body.Range(body.Squeeze(from_), body.Squeeze(to), 1)
        seen = body.GreaterOrEqual(body.Add(segments, origin), [0])
        spoilt = body.And(seen, body.Equal(power, float("inf")))
        spoilt = body.cut(body.Cast(spoilt, to=TensorProto.FLOAT), [1], None, axis=0)
        spoilt = body.MaxPool(
            body.Reshape(spoilt, [1, 1, -1]),
            kernel_shape=[group * groups - 1],
            strides=[group],
        )
        # A segment from before the sequence began spoils a PSD, too.
        oldest = body.Mul(body.Sub(ordinals, groups), geometry.psd_refresh_size)
        whole = body.LessOrEqual(begun, body.Max(oldest, [0]))
        sound = body.And(body.Less(body.Reshape(spoilt, [-1]), 0.5), whole)
        # Noise is whitened to unit variance, see `whitened_variance`.
        filters = whitening.design(body, geometry, body.Mul(psd, variance), sound)
        result: str = body.Concat(psd, filters, axis=1)
        return result

    trips = graph.Div(graph.Add(turn.due, REFRESHES - 1), REFRESHES)
    nothing = graph.ConstantOfShape([0, layout.bins + layout.filter_values])
    both = graph.collect(graph.Squeeze(trips), nothing, 0, refresh)
    psd = graph.cut(both, [0], [layout.bins], axis=1)
    return psd, graph.cut(both, [layout.bins], None, axis=1)
