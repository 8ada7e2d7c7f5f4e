"""The snapshotter: what a sequence must remember, and its power spectral density.

The only stateful model. It keeps the newest strain of every row, the newest
periodograms and the two newest PSDs of row 0, all in one state tensor (the server pairs
several state tensors by the order of their names, not by meaning). The periodogram of
each half-overlapping segment is computed once, when its last sample arrives; a PSD is
made on a fixed grid of times, for each detector counted from where its own data begin.
So a detector that is shifted against another is whitened as it is without the shift,
and nothing depends on how the strain was cut into requests.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx
from onnx import TensorProto

from chirpwatch.geometry import Geometry
from export.graph import Graph, Value
from export.median import median

SCALE = 2.0**66
"""Strain is multiplied by this first: the square of 1e-21 underflows float32.

About 1e20; a power of two, so that the product is exact.
"""

BLOCK_SIZE = 64
"""Whitened samples that share one Toeplitz matrix, and so one PSD."""

SEGMENTS = 16
"""Periodograms that are made at a time, which bounds the memory they take."""


@dataclass(frozen=True)
class Layout:
    """Sizes that the snapshotter and the preprocessor agree on, in samples.

    Attributes:
        geometry: The analysis.
    """

    geometry: Geometry

    @property
    def hop_size(self) -> int:
        """From one periodogram's start to the next one's."""
        return self.geometry.fft_size // 2

    @property
    def bins(self) -> int:
        """Frequencies of a periodogram."""
        return self.geometry.fft_size // 2 + 1

    @property
    def overlap_size(self) -> int:
        """Whitened samples before a request that its first score looks back at."""
        return self.geometry.kernel_size - self.geometry.stride_size

    @property
    def history_size(self) -> int:
        """Strain before a request that its whitening needs, whole blocks.

        Beside the overlap, the filter's half on either side: its output lags by one
        half, and reaches back by the other. And a block, as blocks lie on a grid of
        their own for each detector.
        """
        return self.overlap_size + self.geometry.filter_size + BLOCK_SIZE

    @property
    def tail_size(self) -> int:
        """Strain that the state keeps for each row."""
        return max(self.history_size, self.geometry.fft_size)

    @property
    def spectra_size(self) -> int:
        """Values of the state before the strain: periodograms and two PSDs."""
        return (self.geometry.max_segments + 2) * self.bins

    @property
    def initial_size(self) -> int:
        """Values of the state of a sequence of one row, for each detector."""
        return self.spectra_size + self.tail_size


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


def build(geometry: Geometry) -> onnx.ModelProto:
    """Build the snapshotter.

    Inputs: ``strain`` [rows, ifos, n] float32, ``n`` a multiple of the stride, ``rows``
    another number from request to request if need be; ``position`` [ifos] int64,
    samples of each detector's data before this request, negative where they have not
    begun: what is sent for it until then is ignored; ``state`` [ifos, values].

    Outputs: ``snapshot`` [rows, ifos, history + n], scaled strain; ``psd``
    [spectra, ifos, bins], one-sided, per Hz, in scaled units: the two newest before the
    request, then those that fall due in it (zeros where there was none yet, and at the
    end where another detector has one more);
    ``valid`` [strides] bool; ``new_state``.
    """
    layout = Layout(geometry)
    ifos, bins, tail = len(geometry.ifos), layout.bins, layout.tail_size
    graph = Graph()

    # A sequence begins with a single zero for each detector: Triton makes a variable
    # dimension of an initial state 1, whatever the configuration says.
    missing = graph.Sub(layout.initial_size, graph.size("state", 1))
    padding = graph.Concat([0, 0, 0], graph.Max(missing, [0]), axis=0)
    state = graph.Pad("state", padding)

    # The tail of each row. A row that the state does not have continues row 0; one that
    # the request does not have is forgotten.
    kept = graph.cut(state, [layout.spectra_size], None, axis=1)
    kept = graph.Transpose(graph.Reshape(kept, [ifos, -1, tail]), perm=[1, 0, 2])
    rows = graph.Range(0, graph.Squeeze(graph.size("strain", 0)), 1)
    rows = graph.Where(graph.Less(rows, graph.size(kept, 0)), rows, 0)
    kept = graph.Gather(kept, rows, axis=0)
    buffer = graph.Concat(kept, graph.Mul("strain", SCALE), axis=2)

    size = graph.size("strain", 2)
    turns = [
        Turn.of(graph, geometry, graph.cut("position", [i], [i + 1], axis=0), size)
        for i in range(ifos)
    ]
    most_due = graph.Max(*(turn.due for turn in turns))
    newest, newest_psd, spectra = [], [], []
    for i, turn in enumerate(turns):
        mine = graph.cut(state, [i], [i + 1], axis=0)
        strain = graph.Gather(graph.Gather(buffer, 0, axis=0), i, axis=0)
        periodograms = _periodograms(graph, layout, mine, strain, turn)
        psd = _spectra(graph, layout, mine, periodograms, turn)
        newest.append(graph.cut(periodograms, [-geometry.max_segments], None, axis=1))
        newest_psd.append(graph.cut(psd, [-2], None, axis=0))
        lacking = graph.Sub(most_due, turn.due)
        spectra.append(graph.Pad(psd, graph.Concat([0] * 3, lacking, [0, 0], axis=0)))
    psd = graph.Concat(*spectra, axis=1)

    new_psd = graph.Transpose(graph.Concat(*newest_psd, axis=1), perm=[1, 0, 2])
    new_tail = graph.Transpose(graph.cut(buffer, [-tail], None, axis=2), perm=[1, 0, 2])
    parts = [graph.Concat(*newest, axis=0), new_psd, new_tail]
    parts = [graph.Reshape(x, [ifos, -1]) for x in parts]
    return graph.model(
        "snapshotter",
        inputs=[
            ("strain", TensorProto.FLOAT, ["rows", ifos, "samples"]),
            ("position", TensorProto.INT64, [ifos]),
            ("state", TensorProto.FLOAT, [ifos, "values"]),
        ],
        outputs=[
            (
                "snapshot",
                graph.cut(buffer, [tail - layout.history_size], None, axis=2),
                TensorProto.FLOAT,
                ["rows", ifos, "snapshot_samples"],
            ),
            ("psd", psd, TensorProto.FLOAT, ["spectra", ifos, bins]),
            (
                "valid",
                _validity(graph, layout, psd, turns),
                TensorProto.BOOL,
                ["strides"],
            ),
            (
                "new_state",
                graph.Concat(*parts, axis=1),
                TensorProto.FLOAT,
                [ifos, "new_values"],
            ),
        ],
    )


def _periodograms(
    graph: Graph, layout: Layout, state: Value, strain: Value, turn: Turn
) -> Value:
    """One detector's periodograms: the state's, and those that end in this request.

    Args:
        graph: Where nodes are added.
        layout: Sizes.
        state: The detector's state, [1, values].
        strain: The detector's scaled strain in row 0, [tail + n].
        turn: Where it stands.

    Returns:
        [1, segments, bins], the first being that of the detector's segment
        ``done - max_segments``.
    """
    geometry = layout.geometry
    size, hop = geometry.fft_size, layout.hop_size
    window = np.hanning(size + 1)[:-1]
    gain = np.full(layout.bins, 2 / (geometry.sample_rate * (window**2).sum()))
    gain[[0, -1]] /= 2

    old = graph.cut(state, [0], [geometry.max_segments * layout.bins], axis=1)
    old = graph.Reshape(old, [1, geometry.max_segments, layout.bins])
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
        pieces = body.Mul(pieces, body.Cast(window, to=TensorProto.DOUBLE))
        spectrum = body.DFT(body.Unsqueeze(pieces, [2]), None, 1, onesided=1)
        power = body.ReduceSumSquare(spectrum, [2], keepdims=0)
        power = body.Mul(body.Cast(power, to=TensorProto.FLOAT), gain)
        return body.Unsqueeze(power, [0])

    return graph.collect(graph.Squeeze(trips), old, 1, transform)


def _spectra(
    graph: Graph, layout: Layout, state: Value, periodograms: Value, turn: Turn
) -> Value:
    """One detector's two newest PSDs and those that fall due: [spectra, 1, bins]."""
    geometry = layout.geometry
    segments = geometry.max_segments
    hops = geometry.psd_refresh_size // layout.hop_size
    # A PSD is made of an odd number of half-overlapping segments.
    biases = median_bias(np.arange(1, segments + 1, 2))

    old = graph.cut(state, [segments * layout.bins], [layout.spectra_size], axis=1)
    old = graph.Transpose(graph.Reshape(old, [1, 2, layout.bins]), perm=[1, 0, 2])

    def refresh(body: Graph, trip: Value) -> Value:
        ordinal = body.Add(body.Add(turn.first, 1), trip)
        ended = body.Sub(body.Mul(ordinal, hops), 1)
        count = body.Min(ended, [segments])
        stop = body.Add(body.Sub(ended, turn.done), segments)
        members = body.cut(periodograms, body.Sub(stop, count), stop, axis=1)
        middle = median(body, members, count, segments)
        unbiased = body.Div(middle, body.Gather(biases, body.Div(count, 2)))
        return body.Unsqueeze(unbiased, [0])

    return graph.collect(graph.Squeeze(turn.due), old, 0, refresh)


def sound(graph: Graph, geometry: Geometry, psd: Value) -> Value:
    """Whether each PSD can whiten: int64 [spectra, ifos], 1 or 0.

    A PSD that is not finite or not positive above the highpass, such as that of a
    detector that is off, whitens nothing.
    """
    first_bin = math.ceil(geometry.highpass * geometry.fftlength)
    band = graph.cut(psd, [first_bin], [-1], axis=2)
    able = graph.And(graph.Greater(band, 0.0), graph.Less(band, float("inf")))
    able = graph.Cast(able, to=TensorProto.INT64)
    flags: Value = graph.ReduceMin(able, [2], keepdims=0)
    return flags


def whole_kernels(
    graph: Graph, geometry: Geometry, able: Value, edges: Value, turn: Turn
) -> Value:
    """Whether kernels of one detector are whitened by PSDs of real data: bool.

    Args:
        graph: Where nodes are added.
        geometry: The analysis.
        able: Whether each of its PSDs can whiten, int64 [spectra].
        edges: Samples of the detector's data at the right edges of the kernels'
            strain, [kernels].
        turn: Where it stands.
    """
    valid = graph.GreaterOrEqual(edges, geometry.psd_min_size)
    # The PSDs that whiten the kernel's newest and oldest sample; see the preprocessor.
    for age in (1, geometry.kernel_size):
        refresh = graph.Div(graph.Sub(edges, age), geometry.psd_refresh_size)
        used = graph.Gather(able, turn.spectrum(graph, refresh), axis=0)
        valid = graph.And(valid, graph.Cast(used, to=TensorProto.BOOL))
    whole: Value = valid
    return whole


def _validity(graph: Graph, layout: Layout, psd: Value, turns: Sequence[Turn]) -> Value:
    """Whether each stride's kernels are whole in every detector: bool [strides]."""
    geometry = layout.geometry
    strides = graph.Div(graph.size("strain", 2), geometry.stride_size)
    ordinals = graph.Range(1, graph.Add(graph.Squeeze(strides), 1), 1)
    ends = graph.Mul(ordinals, geometry.stride_size)
    able = sound(graph, geometry, psd)
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
