"""The model ``snapshotter``: a sequence's state, PSDs and whitening filters.

It is the only stateful model. Its single state tensor holds each row's newest strain,
row 0's newest periodograms and two newest whitening filters, and the positions at which
the sequence began and must continue. (With several state tensors, the server would pair
inputs and outputs by the order of their names.)

Each periodogram is computed once, when its last sample arrives; periodograms overlap by
half. PSDs, and filters designed from them, are computed on a fixed time grid, which is
counted for each detector from the start of its own data. So a detector that is shifted
against another is whitened exactly as without the shift, and results do not depend on
how the strain is divided into requests.
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
    Counts,
    Layout,
)
from chirpwatch.export.psd import (
    OldPeriodograms,
    periodograms,
    refreshes,
)
from chirpwatch.geometry import Geometry

DIGIT = 2**23
"""Base in which the state stores a position, as two digits.

A float32 represents every integer up to 2^24 exactly. So two digits hold positions of
nearly 2^47 samples, enough for GPS times in samples at 16,384 Hz.
"""


@dataclass(frozen=True)
class Positions:
    """Positions at which a sequence began and at which a request continues it.

    A position is the number of samples of each detector's data before that point.

    Attributes:
        is_first: 1 for the first request of a sequence, else 0, int64 [1].
        start: Position of the sequence's first request, int64 [ifos].
        position: Position of this request, int64 [ifos].
        accepted: Zero, int64 [1]; it fails a request that does not continue the
            sequence.
    """

    is_first: Value
    start: Value
    position: Value
    accepted: Value

    @classmethod
    def of(cls, graph: Graph, ifos: int, position: Value | None) -> Self:
        """Read the positions, and fail a request that does not continue the sequence.

        Args:
            graph: The graph to extend.
            ifos: Number of detectors.
            position: The request's position, int64 [ifos]. If None, it is read from the
                state, and is 0 in the first request.
        """
        # The initial state is a single zero: Triton sets a variable dimension of an
        # initial state to 1, whatever the configuration says.
        is_first = graph.Equal(graph.size("state", 0), [1])
        is_first = graph.Cast(is_first, to=TensorProto.INT64)
        digits = graph.cut("state", [0], [4 * ifos], axis=0)
        padding = graph.Concat([0], graph.Mul(is_first, 4 * ifos - 1), axis=0)
        digits = graph.Cast(graph.Pad(digits, padding), to=TensorProto.INT64)
        digits = graph.Reshape(digits, [ifos, 2, 2])
        stored = graph.ReduceSum(graph.Mul(digits, [DIGIT, 1]), [2], keepdims=0)
        start, expected = (graph.Gather(stored, i, axis=1) for i in range(2))
        if position is None:
            return cls(is_first, start, expected, graph.value([0]))
        starts = graph.Cast(is_first, to=TensorProto.BOOL)
        start = graph.Where(starts, position, start)
        expected = graph.Where(starts, position, expected)
        jumps = graph.ReduceMax(graph.Abs(graph.Sub(position, expected)), [0])
        accepted = graph.refuse(
            graph.Greater(jumps, [0]),
            "position_must_continue_the_sequence_or_begin_one",
        )
        return cls(is_first, start, position, accepted)

    def digits(self, graph: Graph, size: Value) -> Value:
        """The state's positions after this request of ``size`` samples, flattened."""
        expected = graph.Add(self.position, size)
        columns = []
        for value in (self.start, expected):
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
    ifos, tail = len(geometry.ifos), layout.tail_size
    graph = Graph()
    positions = Positions.of(graph, ifos, None if paired else "position")
    size = graph.size("strain", 2)
    rest = graph.Mod(size, geometry.stride_size)
    divided = graph.refuse(graph.Greater(rest, [0]), "strain_must_be_whole_strides")
    # A request is refused before anything is computed from its strain.
    accepted = graph.Add(positions.accepted, divided)
    scale = graph.Add(SCALE, graph.Cast(accepted, to=TensorProto.FLOAT))
    strain = _continued_strain(graph, layout, positions, scale)
    all_counts = [
        Counts.of(
            graph, geometry, graph.cut(positions.position, [i], [i + 1], axis=0), size
        )
        for i in range(ifos)
    ]
    spectra = _spectra(graph, layout, positions, strain, all_counts)
    tails = graph.cut(strain, [-tail], None, axis=2)
    tails = graph.Reshape(graph.Transpose(tails, perm=[1, 0, 2]), [-1])
    new_state = graph.Concat(
        positions.digits(graph, size), *spectra.state, tails, axis=0
    )
    snapshot = graph.cut(strain, [tail - layout.history_size], None, axis=2)
    if paired:
        snapshot = graph.cut(snapshot, [-1], None, axis=0)
    psd = graph.Concat(*spectra.psds, axis=1)
    whole = _whole_strides(graph, layout, spectra.filters, all_counts)
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
                spectra.filters,
                TensorProto.FLOAT,
                ["filters", ifos, layout.filter_values],
            ),
            ("psd", psd, TensorProto.FLOAT, ["due", ifos, layout.bins]),
            ("whole", whole, TensorProto.BOOL, ["strides"]),
            *(
                [("position", positions.position, TensorProto.INT64, [ifos])]
                if paired
                else []
            ),
            ("new_state", new_state, TensorProto.FLOAT, ["new_values"]),
        ],
    )


def _continued_strain(
    graph: Graph, layout: Layout, positions: Positions, scale: Value
) -> Value:
    """Join each row's strain in the state and in the request: [rows, ifos, tail + n].

    A row that the state does not have continues row 0; a row that the request does not
    have is dropped. In a sequence's first request, zeros take the place of the state.

    Args:
        graph: The graph to extend.
        layout: Sizes.
        positions: The sequence's positions.
        scale: Factor for the request's strain, [1].
    """
    ifos, tail = layout.ifos, layout.tail_size
    stored = graph.cut("state", [layout.periodograms_at(ifos)], None, axis=0)
    padding = graph.Concat([0], graph.Mul(positions.is_first, ifos * tail), axis=0)
    stored = graph.Reshape(graph.Pad(stored, padding), [ifos, -1, tail])
    stored = graph.Transpose(stored, perm=[1, 0, 2])
    rows = graph.Range(0, graph.Squeeze(graph.size("strain", 0)), 1)
    rows = graph.Where(graph.Less(rows, graph.size(stored, 0)), rows, 0)
    stored = graph.Gather(stored, rows, axis=0)
    strain: Value = graph.Concat(stored, graph.Mul("strain", scale), axis=2)
    return strain


@dataclass(frozen=True)
class Spectra:
    """Filters and PSDs at a request, and their part of the next state.

    Attributes:
        filters: The two newest filters from before the request, then those that fall
            due in it, [filters, ifos, values].
        psds: The PSDs that fall due in the request, for each detector
            [due, 1, bins].
        state: Filters and periodograms for the next state, flattened, in its order.
    """

    filters: Value
    psds: list[Value]
    state: list[Value]


def _spectra(
    graph: Graph,
    layout: Layout,
    positions: Positions,
    strain: Value,
    all_counts: Sequence[Counts],
) -> Spectra:
    """Compute the PSDs and filters that fall due in a request, from row 0.

    Args:
        graph: The graph to extend.
        layout: Sizes.
        positions: The sequence's positions.
        strain: Scaled strain, [rows, ifos, tail + n].
        all_counts: Each detector's counts.
    """
    ifos = layout.ifos
    begin, stop = layout.filters_at, layout.periodograms_at(0)
    old_filters = graph.cut("state", [begin], [stop], axis=0)
    padding = graph.Concat([0], graph.Mul(positions.is_first, stop - begin), axis=0)
    old_filters = graph.Pad(old_filters, padding)
    old_filters = graph.Reshape(old_filters, [ifos, 2, layout.filter_values])
    most_due = graph.Max(*(counts.psds_due for counts in all_counts))
    newest_filters: list[Value] = []
    newest_periodograms: list[Value] = []
    filters: list[Value] = []
    psds: list[Value] = []
    for i, counts in enumerate(all_counts):
        background = graph.Gather(graph.Gather(strain, 0, axis=0), i, axis=0)
        new = periodograms(graph, layout, background, counts)
        old = OldPeriodograms(layout, i, positions.is_first)
        start = graph.cut(positions.start, [i], [i + 1], axis=0)
        psd, new_filters = refreshes(graph, layout, old, new, counts, start)
        both = graph.Concat(graph.Gather(old_filters, i, axis=0), new_filters, axis=0)
        last = graph.cut(both, [-2], None, axis=0)
        newest_filters.append(graph.Reshape(last, [-1]))
        newest_periodograms += old.newest(graph, new)
        # Another detector may have more PSDs due.
        lacking = graph.Sub(most_due, counts.psds_due)
        lacking = graph.Concat([0, 0], lacking, [0], axis=0)
        for pieces, piece in ((filters, both), (psds, psd)):
            pieces.append(graph.Unsqueeze(graph.Pad(piece, lacking), [1]))
    return Spectra(
        graph.Concat(*filters, axis=1), psds, newest_filters + newest_periodograms
    )


def whole_kernels(
    graph: Graph, geometry: Geometry, nonzero: Value, edges: Value, counts: Counts
) -> Value:
    """Whether one detector's kernels are whitened by PSDs of real data: bool [kernels].

    Args:
        graph: The graph to extend.
        geometry: The analysis.
        nonzero: Whether each of the detector's filters can whiten, bool [filters].
        edges: Right edges of the kernels' strain, in samples of the detector's data,
            [kernels].
        counts: The detector's counts.
    """
    valid = graph.GreaterOrEqual(edges, geometry.psd_min_size)
    # The PSDs that whiten the kernel's newest and oldest sample; see the preprocessor.
    for age in (1, geometry.kernel_size):
        refresh = graph.Div(graph.Sub(edges, age), geometry.psd_refresh_size)
        used = graph.Gather(nonzero, counts.filter_index(graph, refresh), axis=0)
        valid = graph.And(valid, used)
    flags: Value = valid
    return flags


def _whole_strides(
    graph: Graph, layout: Layout, filters: Value, all_counts: Sequence[Counts]
) -> Value:
    """Whether each stride's kernels are whole in every detector: bool [strides]."""
    geometry = layout.geometry
    strides = graph.Div(graph.size("strain", 2), geometry.stride_size)
    ordinals = graph.Range(1, graph.Add(graph.Squeeze(strides), 1), 1)
    ends = graph.Mul(ordinals, geometry.stride_size)
    nonzero = whitening.nonzero(graph, filters)
    whole = [
        whole_kernels(
            graph,
            geometry,
            graph.Gather(nonzero, i, axis=1),
            graph.Add(counts.samples_before, ends),
            counts,
        )
        for i, counts in enumerate(all_counts)
    ]
    return functools.reduce(graph.And, whole)
