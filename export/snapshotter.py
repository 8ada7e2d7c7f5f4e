"""The snapshotter: a sequence's state, and its whitening filters.

It is the only stateful model. Its single state tensor holds each row's newest strain,
row 0's newest periodograms and two newest whitening filters, and the positions at which
the sequence began and must continue. (The server matches several state tensors by the
order of their names, not by their meaning.)

The periodogram of each half-overlapping segment is computed once, when its last sample
arrives. PSDs, and the filters designed from them, are computed on a fixed grid of
times, which is counted for each detector from the start of its own data. So a detector
that is shifted against another is whitened as it is without the shift, and nothing
depends on how the strain was divided into requests.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import onnx
from onnx import TensorProto

from chirpwatch.export import whitening
from chirpwatch.export.graph import (
    Graph,
    Value,
)
from chirpwatch.export.layout import (
    SCALE,
    Layout,
    Turn,
)
from chirpwatch.export.psd import (
    OldPeriodograms,
    periodograms,
    refreshes,
)
from chirpwatch.geometry import Geometry

DIGIT = 2**23
"""Base in which the state stores a position, as two digits.

A float32 holds every whole number up to 2^24, so that positions may reach 2^47 samples,
enough for GPS times in samples at 16,384 Hz.
"""


@dataclass(frozen=True)
class Course:
    """Positions at which a sequence began and at which a request continues it.

    Attributes:
        fresh: 1 for the first request of a sequence, else 0, int64 [1].
        begun: Samples of each detector's data before the first request, int64 [ifos].
        position: Samples of each detector's data before this request, int64 [ifos].
        accepted: Zero, int64 [1]; it fails a request that does not continue the
            sequence.
    """

    fresh: Value
    begun: Value
    position: Value
    accepted: Value

    @classmethod
    def of(cls, graph: Graph, ifos: int, position: Value | None) -> Self:
        """Read the state, and fail a request that does not continue the sequence.

        Args:
            graph: The graph to extend.
            ifos: Number of detectors.
            position: The request's position. If None, it is read from the state, and is
                0 in the first request.
        """
        # The initial state is a single zero: Triton sets a variable dimension of an
        # initial state to 1, whatever the configuration says.
        fresh = graph.Equal(graph.size("state", 0), [1])
        fresh = graph.Cast(fresh, to=TensorProto.INT64)
        digits = graph.cut("state", [0], [4 * ifos], axis=0)
        padding = graph.Concat([0], graph.Mul(fresh, 4 * ifos - 1), axis=0)
        digits = graph.Cast(graph.Pad(digits, padding), to=TensorProto.INT64)
        digits = graph.Reshape(digits, [ifos, 2, 2])
        kept = graph.ReduceSum(graph.Mul(digits, [DIGIT, 1]), [2], keepdims=0)
        begun, following = (graph.Gather(kept, i, axis=1) for i in range(2))
        if position is None:
            return cls(fresh, begun, following, graph.value([0]))
        is_fresh = graph.Cast(fresh, to=TensorProto.BOOL)
        begun = graph.Where(is_fresh, position, begun)
        following = graph.Where(is_fresh, position, following)
        jumps = graph.ReduceMax(graph.Abs(graph.Sub(position, following)), [0])
        accepted = graph.refuse(
            graph.Greater(jumps, [0]),
            "position_must_continue_the_sequence_or_begin_one",
        )
        return cls(fresh, begun, position, accepted)

    def digits(self, graph: Graph, size: Value) -> Value:
        """The state's positions after this request of ``size`` samples, flattened."""
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

    Inputs: ``strain`` [rows, ifos, n] float32, where ``n`` is a multiple of the stride
    and ``rows`` may change from request to request; ``position`` [ifos] int64, samples
    of each detector's data before this request; ``state`` [values]. A position is
    negative until the detector's data begin, and strain sent for it until then is
    ignored. A request whose position does not continue the sequence fails, and leaves
    the state unchanged.

    Outputs: ``snapshot`` [rows, ifos, history + n], scaled strain; ``filters``
    [filters, ifos, values], the two newest whitening filters from before the request,
    then those that fall due in it (zeros where there is no filter, or where the PSD
    cannot be used for whitening); ``psd`` [due, ifos, bins], the PSDs that fall due in
    the request, one-sided, per Hz, in scaled units, estimated from real data of this
    sequence only where their filters are not zero; ``whole`` [strides] bool, whether
    each stride's kernel is whitened only by PSDs of real data of this sequence;
    ``new_state``.

    Args:
        geometry: The analysis.
        paired: Whether requests have two rows, of which the last is scored, and no
            position. ``snapshot`` then has only that row, and ``position``, counted
            from 0 in the sequence, is an output.
    """
    layout = Layout(geometry)
    ifos, bins, tail = len(geometry.ifos), layout.bins, layout.tail_size
    graph = Graph()
    course = Course.of(graph, ifos, None if paired else "position")
    size = graph.size("strain", 2)
    rest = graph.Mod(size, geometry.stride_size)
    whole = graph.refuse(graph.Greater(rest, [0]), "strain_must_be_whole_strides")
    # A request is refused before anything is computed from its strain.
    accepted = graph.Add(course.accepted, whole)
    scale = graph.Add(SCALE, graph.Cast(accepted, to=TensorProto.FLOAT))

    buffer = _buffer(graph, layout, course, scale)
    turns = [
        Turn.of(graph, geometry, graph.cut(course.position, [i], [i + 1], axis=0), size)
        for i in range(ifos)
    ]
    old_filters = _old_filters(graph, layout, course)
    most_due = graph.Max(*(turn.due for turn in turns))
    newest_filters: list[Value] = []
    newest_periodograms: list[Value] = []
    filters: list[Value] = []
    psds: list[Value] = []
    for i, turn in enumerate(turns):
        strain = graph.Gather(graph.Gather(buffer, 0, axis=0), i, axis=0)
        new = periodograms(graph, layout, strain, turn)
        old = OldPeriodograms(layout, i, course.fresh)
        begun = graph.cut(course.begun, [i], [i + 1], axis=0)
        psd, made = refreshes(graph, layout, old, new, turn, begun)
        both = graph.Concat(graph.Gather(old_filters, i, axis=0), made, axis=0)
        last = graph.cut(both, [-2], None, axis=0)
        newest_filters.append(graph.Reshape(last, [-1]))
        newest_periodograms += old.newest(graph, new)
        # Another detector may have more PSDs due.
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


def _buffer(graph: Graph, layout: Layout, course: Course, scale: Value) -> Value:
    """The state's strain and the request's, scaled: [rows, ifos, tail_size + n]."""
    ifos, tail = len(layout.geometry.ifos), layout.tail_size
    # Each row's strain. A row that the state does not have continues row 0; a row that
    # the request does not have is dropped.
    kept = graph.cut("state", [layout.periodograms_at(ifos)], None, axis=0)
    padding = graph.Concat([0], graph.Mul(course.fresh, ifos * tail), axis=0)
    kept = graph.Reshape(graph.Pad(kept, padding), [ifos, -1, tail])
    kept = graph.Transpose(kept, perm=[1, 0, 2])
    rows = graph.Range(0, graph.Squeeze(graph.size("strain", 0)), 1)
    rows = graph.Where(graph.Less(rows, graph.size(kept, 0)), rows, 0)
    kept = graph.Gather(kept, rows, axis=0)
    buffer: Value = graph.Concat(kept, graph.Mul("strain", scale), axis=2)
    return buffer


def _old_filters(graph: Graph, layout: Layout, course: Course) -> Value:
    """The two newest filters from before the request, [ifos, 2, values]."""
    ifos = len(layout.geometry.ifos)
    begin, stop = layout.filters_at, layout.periodograms_at(0)
    old_filters = graph.cut("state", [begin], [stop], axis=0)
    padding = graph.Concat([0], graph.Mul(course.fresh, stop - begin), axis=0)
    old_filters = graph.Pad(old_filters, padding)
    shaped: Value = graph.Reshape(old_filters, [ifos, 2, layout.filter_values])
    return shaped


def whole_kernels(
    graph: Graph, geometry: Geometry, able: Value, edges: Value, turn: Turn
) -> Value:
    """Whether one detector's kernels are whitened by PSDs of real data: bool [kernels].

    Args:
        graph: The graph to extend.
        geometry: The analysis.
        able: Whether each of the detector's filters can whiten, bool [filters].
        edges: Right edges of the kernels' strain, in samples of the detector's data,
            [kernels].
        turn: The detector's counts.
    """
    valid = graph.GreaterOrEqual(edges, geometry.psd_min_size)
    # The PSDs that whiten the kernel's newest and oldest sample; see the preprocessor.
    for age in (1, geometry.kernel_size):
        refresh = graph.Div(graph.Sub(edges, age), geometry.psd_refresh_size)
        used = graph.Gather(able, turn.filter_index(graph, refresh), axis=0)
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
