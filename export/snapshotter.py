"""The snapshotter: what a sequence must remember, and its whitening filters.

The only stateful model. It keeps the newest strain of every row, the newest
periodograms and the two newest whitening filters of row 0, and where the sequence
began and must go on, all in one state tensor (the server pairs several state tensors
by the order of their names, not by meaning). The periodogram of each half-overlapping
segment is computed once, when its last sample arrives. PSDs, and the filters made from
them, are computed on a fixed grid of times, for each detector counted from where its
own data begin. So a detector that is shifted against another is whitened as it is
without the shift, and nothing depends on how the strain was cut into requests.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx
from onnx import TensorProto

from chirpwatch.geometry import Geometry
from export import fourier, whitening
from export.graph import Graph, Value
from export.median import sliding_medians, unseen

SCALE = 2.0**66
"""Strain is multiplied by this first: the square of 1e-21 underflows float32.

About 1e20; a power of two, so that the product is exact.
"""

BLOCK_SIZE = 64
"""Whitened samples that share one Toeplitz matrix, and so one filter."""

SEGMENTS = 16
"""Periodograms that are made at a time, which bounds the memory they take."""

REFRESHES = 32
"""PSDs that are made at a time, alike."""

DIGIT = 2**20
"""Positions are kept in the state as two digits of this base.

A float32 holds whole numbers up to 2^24, which are two hours of samples.
"""


@dataclass(frozen=True)
class Layout:
    """Sizes that the snapshotter and the preprocessor agree on.

    The state is, in this order and each of every detector: where the sequence began and
    where it must go on (two digits each), two filters, the periodograms, the strain of
    each row.

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


def median_bias(counts: np.ndarray) -> np.ndarray:
    """Expected median of ``n`` exponential variables of mean 1, for odd ``n``.

    Source: B. Allen et al., Phys. Rev. D 85, 122006 (2012), appendix B.
    """
    return np.array([sum((-1) ** (i + 1) / i for i in range(1, n + 1)) for n in counts])


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

    def spectrum(self, graph: Graph, refresh: Value) -> Value:
        """Index among a request's PSDs of the newest one after some refreshes.

        Args:
            graph: Where nodes are added.
            refresh: Refreshes since the detector's data began, any shape.
        """
        # Two PSDs are older than the request; before the first, the first serves.
        index = graph.Add(graph.Sub(graph.Max(refresh, [1]), self.first), 1)
        nearest: Value = graph.Min(index, graph.Add(self.due, 1))
        return nearest


@dataclass(frozen=True)
class Course:
    """Where a sequence began, and where a request continues it.

    Attributes:
        fresh: 1 for the first request of a sequence, else 0, int64 [1].
        begun: Samples of each detector's data before the first request, int64 [ifos].
        position: Those before this request, checked, int64 [ifos].
    """

    fresh: Value
    begun: Value
    position: Value

    @classmethod
    def of(cls, graph: Graph, ifos: int, position: Value | None) -> Self:
        """Read the state; a request that does not continue the sequence fails.

        Args:
            graph: Where nodes are added.
            ifos: Detectors.
            position: What the request says of its position; None takes it from the
                state, and 0 in the first request.
        """
        # A sequence begins with a single zero: Triton makes a variable dimension of an
        # initial state 1, whatever the configuration says.
        fresh = graph.Equal(graph.size("state", 0), [1])
        fresh = graph.Cast(fresh, to=TensorProto.INT64)
        digits = graph.cut("state", [0], [4 * ifos], axis=0)
        padding = graph.Concat([0], graph.Mul(fresh, 4 * ifos - 1), axis=0)
        digits = graph.Cast(graph.Pad(digits, padding), to=TensorProto.INT64)
        digits = graph.Reshape(digits, [ifos, 2, 2])
        kept = graph.ReduceSum(graph.Mul(digits, [DIGIT, 1]), [2], keepdims=0)
        begun, following = (graph.Gather(kept, i, axis=1) for i in range(2))
        if position is None:
            return cls(fresh, begun, following)
        is_fresh = graph.Cast(fresh, to=TensorProto.BOOL)
        begun = graph.Where(is_fresh, position, begun)
        following = graph.Where(is_fresh, position, following)
        jumps = graph.Not(graph.Equal(position, following))
        jumps = graph.ReduceMax(graph.Cast(jumps, to=TensorProto.INT64), [0])
        # The only way to refuse a request in ONNX: an index that is out of bounds. The
        # error that the client gets contains the node's name.
        nothing = graph.Gather(
            [0], jumps, name="position_must_continue_the_sequence_or_begin_one"
        )
        return cls(fresh, begun, graph.Add(position, nothing))

    def digits(self, graph: Graph, size: Value) -> Value:
        """The state's part after this request of ``size`` samples, flat."""
        following = graph.Add(self.position, size)
        columns = []
        for value in (self.begun, following):
            low = graph.Mod(value, DIGIT)
            columns += [graph.Div(graph.Sub(value, low), DIGIT), low]
        columns = [graph.Unsqueeze(column, [1]) for column in columns]
        digits = graph.Reshape(graph.Concat(*columns, axis=1), [-1])
        part: Value = graph.Cast(digits, to=TensorProto.FLOAT)
        return part


def build(geometry: Geometry, paired: bool = False) -> onnx.ModelProto:
    """Build the snapshotter.

    Inputs: ``strain`` [rows, ifos, n] float32, ``n`` a multiple of the stride, ``rows``
    another number from request to request if need be; ``position`` [ifos] int64,
    samples of each detector's data before this request, negative where they have not
    begun: what is sent for it until then is ignored; ``state`` [values]. A
    request whose position does not continue the sequence fails, and leaves the state as
    it is.

    Outputs: ``snapshot`` [rows, ifos, history + n], scaled strain; ``filters``
    [filters, ifos, values], the two newest whitening filters before the request, then
    those that fall due in it (zeros where there is none, and where the PSD can whiten
    nothing); ``psd`` [due, ifos, bins], the PSDs that fall due in the request,
    one-sided, per Hz, in scaled units, 0 at 0 Hz; ``whole`` [strides] bool, whether
    each stride's kernel is whitened by PSDs of real data of this sequence alone;
    ``new_state``.

    Args:
        geometry: The analysis.
        paired: Whether a request is of two rows of which the last one is scored, and
            says no position: ``snapshot`` is that row's alone, and the sequence counts
            its position, from 0 on, as an output.
    """
    layout = Layout(geometry)
    ifos, bins, tail = len(geometry.ifos), layout.bins, layout.tail_size
    graph = Graph()
    course = Course.of(graph, ifos, None if paired else "position")

    # The strain of each row. A row that the state does not have continues row 0; one
    # that the request does not have is forgotten.
    kept = graph.cut("state", [layout.periodograms_at(ifos)], None, axis=0)
    padding = graph.Concat([0], graph.Mul(course.fresh, ifos * tail), axis=0)
    kept = graph.Reshape(graph.Pad(kept, padding), [ifos, -1, tail])
    kept = graph.Transpose(kept, perm=[1, 0, 2])
    rows = graph.Range(0, graph.Squeeze(graph.size("strain", 0)), 1)
    rows = graph.Where(graph.Less(rows, graph.size(kept, 0)), rows, 0)
    kept = graph.Gather(kept, rows, axis=0)
    buffer = graph.Concat(kept, graph.Mul("strain", SCALE), axis=2)

    size = graph.size("strain", 2)
    turns = [
        Turn.of(graph, geometry, graph.cut(course.position, [i], [i + 1], axis=0), size)
        for i in range(ifos)
    ]
    begin, stop = layout.filters_at, layout.periodograms_at(0)
    old_filters = graph.cut("state", [begin], [stop], axis=0)
    padding = graph.Concat([0], graph.Mul(course.fresh, stop - begin), axis=0)
    old_filters = graph.Pad(old_filters, padding)
    old_filters = graph.Reshape(old_filters, [ifos, 2, layout.filter_values])
    most_due = graph.Max(*(turn.due for turn in turns))
    newest_filters: list[Value] = []
    newest_periodograms: list[Value] = []
    filters: list[Value] = []
    psds: list[Value] = []
    for i, turn in enumerate(turns):
        one = [i], [i + 1]
        strain = graph.Gather(graph.Gather(buffer, 0, axis=0), i, axis=0)
        new = _periodograms(graph, layout, strain, turn)
        old = OldPeriodograms(layout, i, course.fresh)
        begun = graph.cut(course.begun, *one, axis=0)
        psd, made = _refreshes(graph, layout, old, new, turn, begun)
        both = graph.Concat(graph.Gather(old_filters, i, axis=0), made, axis=0)
        last = graph.cut(both, [-2], None, axis=0)
        newest_filters.append(graph.Reshape(last, [-1]))
        newest_periodograms += old.newest(graph, new)
        # Another detector may have one more.
        lacking = graph.Concat([0, 0], graph.Sub(most_due, turn.due), [0], axis=0)
        for pieces, piece in ((filters, both), (psds, psd)):
            pieces.append(graph.Unsqueeze(graph.Pad(piece, lacking), [1]))
    filters_output = graph.Concat(*filters, axis=1)
    tails = graph.cut(buffer, [-tail], None, axis=2)
    tails = graph.Reshape(graph.Transpose(tails, perm=[1, 0, 2]), [-1])
    new_state = graph.Concat(
        course.digits(graph, size),
        *newest_filters,
        *newest_periodograms,
        tails,
        axis=0,
    )
    snapshot = graph.cut(buffer, [tail - layout.history_size], None, axis=2)
    if paired:
        snapshot = graph.cut(snapshot, [-1], None, axis=0)
    return graph.model(
        "snapshotter",
        inputs=[
            ("strain", TensorProto.FLOAT, ["rows", ifos, "samples"]),
            *([] if paired else [("position", TensorProto.INT64, [ifos])]),
            ("state", TensorProto.FLOAT, ["values"]),
        ],
        outputs=[
            (
                "snapshot",
                snapshot,
                TensorProto.FLOAT,
                ["rows", ifos, "snapshot_samples"],
            ),
            (
                "filters",
                filters_output,
                TensorProto.FLOAT,
                ["filters", ifos, layout.filter_values],
            ),
            (
                "psd",
                graph.Concat(*psds, axis=1),
                TensorProto.FLOAT,
                ["due", ifos, bins],
            ),
            (
                "whole",
                _whole_strides(graph, layout, filters_output, turns),
                TensorProto.BOOL,
                ["strides"],
            ),
            *(
                [("position", course.position, TensorProto.INT64, [ifos])]
                if paired
                else []
            ),
            ("new_state", new_state, TensorProto.FLOAT, ["new_values"]),
        ],
    )


def _periodograms(graph: Graph, layout: Layout, strain: Value, turn: Turn) -> Value:
    """One detector's periodograms that end in this request: [segments, bins].

    Their values at 0 Hz are 0, and not a number where the segment holds what is not
    finite.

    Args:
        graph: Where nodes are added.
        layout: Sizes.
        strain: The detector's scaled strain in row 0, [tail + n].
        turn: Where it stands.
    """
    geometry = layout.geometry
    size, hop = geometry.fft_size, layout.hop_size
    window = np.hanning(size + 1)[:-1]
    gain = np.full(layout.bins, 2 / (geometry.sample_rate * (window**2).sum()))
    gain[-1] /= 2
    gain[0] = 0

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
        # Real strain is loudest below 10 Hz, by four orders of magnitude; in float32
        # the rounding errors would spill over the quiet band (0.6 % of the PSD around
        # GW150914).
        pieces = body.Cast(pieces, to=TensorProto.DOUBLE)
        pieces = body.Sub(pieces, body.ReduceMean(pieces, [1]))
        pieces = body.Mul(pieces, body.constant(window))
        power = fourier.power(body, pieces, size)
        return body.Mul(body.Cast(power, to=TensorProto.FLOAT), gain)

    nothing = graph.ConstantOfShape([0, layout.bins])
    return graph.collect(graph.Squeeze(trips), nothing, 0, transform)


@dataclass(frozen=True)
class OldPeriodograms:
    """One detector's periodograms before a request, as the state has them.

    Attributes:
        layout: Sizes.
        ifo: Index of the detector.
        fresh: 1 for the first request of a sequence, which has none, else 0, int64 [1].
    """

    layout: Layout
    ifo: int
    fresh: Value

    def _values(self, graph: Graph, first: Value) -> Value:
        """Those from the one with the index ``first`` on, [values]."""
        layout = self.layout
        begin, stop = (layout.periodograms_at(self.ifo + i) for i in range(2))
        start = graph.Add(graph.Mul(first, layout.bins), begin)
        values: Value = graph.cut("state", start, [stop], axis=0)
        return values

    def _unseen(self, graph: Graph, first: Value) -> Value:
        """What stands for periodograms before the first one, alike: [rows, bins]."""
        layout = self.layout
        pattern = np.tile(unseen(layout.group_size), layout.groups)
        # A group ends with a PSD, and the first one's oldest segment has no data.
        rows = graph.value(np.roll(pattern, -1)[:, None])
        rows = graph.cut(rows, first, None, axis=0)
        shape = graph.Concat(graph.size(rows, 0), [layout.bins], axis=0)
        values: Value = graph.Expand(rows, shape)
        return values

    def _firsts(self, graph: Graph, dropped: Value) -> tuple[Value, Value]:
        """First index of the state's rows and of the unseen ones; one has none."""
        count = self.layout.periodograms
        absent = graph.Mul(self.fresh, count)
        unseen_first = graph.Add(graph.Sub([count], absent), dropped)
        return graph.Add(absent, dropped), unseen_first

    def all(self, graph: Graph) -> Value:
        """All of them, [periodograms, bins]."""
        first, unseen_first = self._firsts(graph, graph.value([0]))
        values = graph.Reshape(self._values(graph, first), [-1, self.layout.bins])
        joined: Value = graph.Concat(self._unseen(graph, unseen_first), values, axis=0)
        return joined

    def newest(self, graph: Graph, new: Value) -> list[Value]:
        """Parts of the next state: the newest of them and of ``new`` ones, flat."""
        count = self.layout.periodograms
        first, unseen_first = self._firsts(graph, graph.size(new, 0))
        newest = graph.cut(new, [-count], None, axis=0)
        return [
            graph.Reshape(self._unseen(graph, unseen_first), [-1]),
            self._values(graph, graph.Min(first, [count])),
            graph.Reshape(newest, [-1]),
        ]


def _refreshes(
    graph: Graph,
    layout: Layout,
    old: OldPeriodograms,
    new: Value,
    turn: Turn,
    begun: Value,
) -> tuple[Value, Value]:
    """One detector's PSDs that fall due, [due, bins], and their filters, [due, values].

    Args:
        graph: Where nodes are added.
        layout: Sizes.
        old: Periodograms before the request.
        new: Those that ended in it, [segments, bins].
        turn: Where the detector stands.
        begun: Samples of its data before the sequence began, int64 [1].
    """
    geometry = layout.geometry
    group, groups = layout.group_size, layout.groups
    # A PSD is made of an odd number of half-overlapping segments.
    biases = median_bias(np.arange(1, group * groups, 2))

    def refresh(body: Graph, trip: Value) -> Value:
        # Refresh k, counted from the begin of the data, is of the groups before it.
        begin = body.Mul(body.Unsqueeze(trip, [0]), REFRESHES)
        stop = body.Min(body.Add(begin, REFRESHES), turn.due)
        ordinals = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        ordinals = body.Add(body.Add(ordinals, turn.first), 1)
        rows = body.Concat(old.all(body), new, axis=0)
        # `rows` begins with segment done - periodograms; the window of refresh k with
        # segment (k - groups) * group - 1.
        origin = body.Sub(turn.done, layout.periodograms)
        from_, to = (
            body.Sub(body.Sub(body.Mul(body.Add(turn.first, x), group), 1), origin)
            for x in (body.Sub(begin, groups - 1), stop)
        )
        members = body.cut(rows, from_, to, axis=0)
        middle = sliding_medians(body, members, layout.bins, group, groups)
        counts = body.Min(body.Sub(body.Mul(ordinals, group), 1), group * groups - 1)
        bias = body.Unsqueeze(body.Gather(biases, body.Div(counts, 2)), [1])
        psd = body.Div(middle, bias)

        # A segment that holds what is not finite spoils every PSD that it is part of.
        at_zero = body.cut(body.cut(members, [1], None, axis=0), [0], [1], axis=1)
        spoilt = body.Cast(body.Not(body.Equal(at_zero, at_zero)), to=TensorProto.FLOAT)
        spoilt = body.MaxPool(
            body.Reshape(spoilt, [1, 1, -1]),
            kernel_shape=[group * groups - 1],
            strides=[group],
        )
        # So does a segment from before the sequence began.
        oldest = body.Mul(body.Sub(ordinals, groups), geometry.psd_refresh_size)
        seen = body.LessOrEqual(begun, body.Max(oldest, [0]))
        sound = body.And(body.Less(body.Reshape(spoilt, [-1]), 0.5), seen)
        filters = whitening.design(body, geometry, psd, sound)
        return body.Concat(psd, filters, axis=1)

    trips = graph.Div(graph.Add(turn.due, REFRESHES - 1), REFRESHES)
    nothing = graph.ConstantOfShape([0, layout.bins + layout.filter_values])
    both = graph.collect(graph.Squeeze(trips), nothing, 0, refresh)
    psd = graph.cut(both, [0], [layout.bins], axis=1)
    return psd, graph.cut(both, [layout.bins], None, axis=1)


def whole_kernels(
    graph: Graph, geometry: Geometry, able: Value, edges: Value, turn: Turn
) -> Value:
    """Whether kernels of one detector are whitened by PSDs of real data: bool.

    Args:
        graph: Where nodes are added.
        geometry: The analysis.
        able: Whether each of its filters can whiten, bool [filters].
        edges: Samples of the detector's data at the right edges of the kernels'
            strain, [kernels].
        turn: Where it stands.
    """
    valid = graph.GreaterOrEqual(edges, geometry.psd_min_size)
    # The PSDs that whiten the kernel's newest and oldest sample; see the preprocessor.
    for age in (1, geometry.kernel_size):
        refresh = graph.Div(graph.Sub(edges, age), geometry.psd_refresh_size)
        used = graph.Gather(able, turn.spectrum(graph, refresh), axis=0)
        valid = graph.And(valid, used)
    whole: Value = valid
    return whole


def _whole_strides(
    graph: Graph, layout: Layout, filters: Value, turns: Sequence[Turn]
) -> Value:
    """Whether each stride's kernels are whole in every detector: bool [strides]."""
    geometry = layout.geometry
    strides = graph.Div(graph.size("strain", 2), geometry.stride_size)
    ordinals = graph.Range(1, graph.Add(graph.Squeeze(strides), 1), 1)
    ends = graph.Mul(ordinals, geometry.stride_size)
    able = whitening.able(graph, filters)
    whole = [
        whole_kernels(
            graph,
            geometry,
            graph.Gather(able, i, axis=1),
            graph.Add(turn.before, ends),
            turn,
        )
        for i, turn in enumerate(turns)
    ]
    return functools.reduce(graph.And, whole)
