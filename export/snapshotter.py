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

import onnx
from onnx import TensorProto

from chirpwatch.geometry import Geometry
from export import whitening
from export.graph import Graph, Value
from export.layout import SCALE, Layout, Turn
from export.psd import OldPeriodograms, periodograms, refreshes

DIGIT = 2**23
"""Positions are kept in the state as two digits of this base.

A float32 holds whole numbers up to 2^24, so that positions may reach 2^47 samples:
GPS times in samples of 16,384 Hz.
"""


@dataclass(frozen=True)
class Course:
    """Where a sequence began, and where a request continues it.

    Attributes:
        fresh: 1 for the first request of a sequence, else 0, int64 [1].
        begun: Samples of each detector's data before the first request, int64 [ifos].
        position: Those before this request, int64 [ifos].
        accepted: Zero, int64 [1], where the request continues the sequence.
    """

    fresh: Value
    begun: Value
    position: Value
    accepted: Value

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
    one-sided, per Hz, in scaled units, of real data of this sequence only where their
    filters are not zero; ``whole`` [strides] bool, whether each stride's kernel is
    whitened by PSDs of real data of this sequence alone; ``new_state``.

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
    size = graph.size("strain", 2)
    rest = graph.Mod(size, geometry.stride_size)
    whole = graph.refuse(graph.Greater(rest, [0]), "strain_must_be_whole_strides")
    # A request that is refused is refused before anything is made of its strain.
    accepted = graph.Add(course.accepted, whole)
    scale = graph.Add(SCALE, graph.Cast(accepted, to=TensorProto.FLOAT))

    # The strain of each row. A row that the state does not have continues row 0; one
    # that the request does not have is forgotten.
    kept = graph.cut("state", [layout.periodograms_at(ifos)], None, axis=0)
    padding = graph.Concat([0], graph.Mul(course.fresh, ifos * tail), axis=0)
    kept = graph.Reshape(graph.Pad(kept, padding), [ifos, -1, tail])
    kept = graph.Transpose(kept, perm=[1, 0, 2])
    rows = graph.Range(0, graph.Squeeze(graph.size("strain", 0)), 1)
    rows = graph.Where(graph.Less(rows, graph.size(kept, 0)), rows, 0)
    kept = graph.Gather(kept, rows, axis=0)
    buffer = graph.Concat(kept, graph.Mul("strain", scale), axis=2)

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
        new = periodograms(graph, layout, strain, turn)
        old = OldPeriodograms(layout, i, course.fresh)
        begun = graph.cut(course.begun, *one, axis=0)
        psd, made = refreshes(graph, layout, old, new, turn, begun)
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
