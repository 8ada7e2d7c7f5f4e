"""The snapshotter: what a sequence must remember, and its power spectral density.

The only stateful model. It keeps the newest strain of every row, the newest
periodograms and the two newest PSDs of row 0, all in one state tensor (the server pairs
several state tensors by the order of their names, not by meaning). The periodogram of
each half-overlapping segment is computed once, when its last sample arrives; a PSD is
made on a fixed grid of times counted from the sequence's start. Nothing depends on how
the strain was cut into requests.
"""

import math
from dataclasses import dataclass

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
        half, and reaches back by the other.
        """
        return self.overlap_size + self.geometry.filter_size

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


def build(geometry: Geometry) -> onnx.ModelProto:
    """Build the snapshotter.

    Inputs: ``strain`` [rows, ifos, n] float32, ``n`` a multiple of the stride; ``step``
    [1] int64, strides of the sequence before this request; ``state`` [ifos, values].

    Outputs: ``snapshot`` [rows, ifos, history + n], scaled strain; ``psd``
    [spectra, ifos, bins], one-sided, per Hz, in scaled units: the two newest before the
    request, then those that fall due in it (zeros where there was none yet);
    ``valid`` [strides] bool; ``new_state``.
    """
    layout = Layout(geometry)
    ifos, bins, tail = len(geometry.ifos), layout.bins, layout.tail_size
    graph = Graph()
    before = graph.Mul("step", geometry.stride_size)
    after = graph.Add(before, graph.size("strain", 2))

    # A sequence begins with a single zero for each detector: Triton makes a variable
    # dimension of an initial state 1, whatever the configuration says.
    missing = graph.Sub(layout.initial_size, graph.size("state", 1))
    padding = graph.Concat([0, 0, 0], graph.Max(missing, [0]), axis=0)
    state = graph.Pad("state", padding)

    # The tail of each row; a new sequence has one row of zeros for all of them.
    kept = graph.cut(state, [layout.spectra_size], None, axis=1)
    kept = graph.Transpose(graph.Reshape(kept, [ifos, -1, tail]), perm=[1, 0, 2])
    kept = graph.Expand(kept, graph.Concat(graph.size("strain", 0), [1, 1], axis=0))
    buffer = graph.Concat(kept, graph.Mul("strain", SCALE), axis=2)

    periodograms, done = _periodograms(graph, layout, state, buffer, before, after)
    psd = _spectra(graph, layout, state, periodograms, done, before, after)

    newest = graph.cut(periodograms, [-geometry.max_segments], None, axis=1)
    newest_psd = graph.Transpose(graph.cut(psd, [-2], None, axis=0), perm=[1, 0, 2])
    new_tail = graph.Transpose(graph.cut(buffer, [-tail], None, axis=2), perm=[1, 0, 2])
    parts = [graph.Reshape(x, [ifos, -1]) for x in (newest, newest_psd, new_tail)]
    valid = _validity(graph, layout, psd, before)
    return graph.model(
        "snapshotter",
        inputs=[
            ("strain", TensorProto.FLOAT, ["rows", ifos, "samples"]),
            ("step", TensorProto.INT64, [1]),
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
            ("valid", valid, TensorProto.BOOL, ["strides"]),
            (
                "new_state",
                graph.Concat(*parts, axis=1),
                TensorProto.FLOAT,
                [ifos, "new_values"],
            ),
        ],
    )


def _periodograms(
    graph: Graph,
    layout: Layout,
    state: Value,
    buffer: Value,
    before: Value,
    after: Value,
) -> tuple[Value, Value]:
    """The state's periodograms, and those whose segment ends in this request.

    Returns:
        Periodograms [ifos, segments, bins], the first being that of the sequence's
        segment ``done - max_segments``; and ``done``, the number of segments that had
        ended before the request.
    """
    geometry = layout.geometry
    size, hop = geometry.fft_size, layout.hop_size
    window = np.hanning(size + 1)[:-1]
    gain = np.full(layout.bins, 2 / (geometry.sample_rate * (window**2).sum()))
    gain[[0, -1]] /= 2

    done = graph.Max(graph.Sub(graph.Div(before, hop), 1), [0])
    ready = graph.Max(graph.Sub(graph.Div(after, hop), 1), [0])
    starts = graph.Mul(graph.Range(graph.Squeeze(done), graph.Squeeze(ready), 1), hop)
    starts = graph.Add(graph.Sub(starts, before), layout.tail_size)
    samples = graph.Add(graph.Unsqueeze(starts, [1]), np.arange(size)[None])
    pieces = graph.Gather(graph.Gather(buffer, 0, axis=0), samples, axis=1)
    # Real strain is loudest below 10 Hz, by four orders of magnitude; in float32 the
    # rounding errors would spill over the quiet band (0.6 % of the PSD around
    # GW150914).
    pieces = graph.Cast(pieces, to=TensorProto.DOUBLE)
    pieces = graph.Sub(pieces, graph.ReduceMean(pieces, [2]))
    pieces = graph.Mul(pieces, graph.Cast(window, to=TensorProto.DOUBLE))
    spectrum = graph.DFT(graph.Unsqueeze(pieces, [3]), None, 2, onesided=1)
    power = graph.ReduceSumSquare(spectrum, [3], keepdims=0)
    power = graph.Mul(graph.Cast(power, to=TensorProto.FLOAT), gain)
    old = graph.cut(state, [0], [geometry.max_segments * layout.bins], axis=1)
    old = graph.Reshape(old, [len(geometry.ifos), geometry.max_segments, layout.bins])
    return graph.Concat(old, power, axis=1), done


def _spectra(
    graph: Graph,
    layout: Layout,
    state: Value,
    periodograms: Value,
    done: Value,
    before: Value,
    after: Value,
) -> Value:
    """The state's two PSDs and those that fall due: [spectra, ifos, bins]."""
    geometry = layout.geometry
    segments = geometry.max_segments
    hops = geometry.psd_refresh_size // layout.hop_size
    # A PSD is made of an odd number of half-overlapping segments.
    biases = median_bias(np.arange(1, segments + 1, 2))

    old = graph.cut(state, [segments * layout.bins], [layout.spectra_size], axis=1)
    old = graph.Reshape(old, [len(geometry.ifos), 2, layout.bins])
    old = graph.Transpose(old, perm=[1, 0, 2])
    first = graph.Div(before, geometry.psd_refresh_size)
    due = graph.Sub(graph.Div(after, geometry.psd_refresh_size), first)

    def refresh(body: Graph, trip: Value, psd: Value) -> Value:
        ordinal = body.Add(body.Add(first, 1), trip)
        ended = body.Sub(body.Mul(ordinal, hops), 1)
        count = body.Min(ended, [segments])
        stop = body.Add(body.Sub(ended, done), segments)
        members = body.cut(periodograms, body.Sub(stop, count), stop, axis=1)
        middle = median(body, members, count, segments)
        unbiased = body.Div(middle, body.Gather(biases, body.Div(count, 2)))
        return body.Concat(psd, body.Unsqueeze(unbiased, [0]), axis=0)

    return graph.loop(graph.Squeeze(due), old, refresh)


def _validity(graph: Graph, layout: Layout, psd: Value, before: Value) -> Value:
    """Whether each stride's kernel is whitened by PSDs of real data: bool [strides].

    A PSD that is not finite or not positive above the highpass, such as that of a
    detector that is off, whitens nothing.
    """
    geometry = layout.geometry
    strides = graph.Div(graph.size("strain", 2), geometry.stride_size)
    ordinals = graph.Range(1, graph.Add(graph.Squeeze(strides), 1), 1)
    edges = graph.Mul(graph.Add("step", ordinals), geometry.stride_size)

    first_bin = math.ceil(geometry.highpass * geometry.fftlength)
    band = graph.cut(psd, [first_bin], [-1], axis=2)
    sound = graph.And(graph.Greater(band, 0.0), graph.Less(band, float("inf")))
    sound = graph.Cast(sound, to=TensorProto.INT64)
    sound = graph.ReduceMin(sound, [1, 2], keepdims=0)

    valid = graph.GreaterOrEqual(edges, geometry.psd_min_size)
    now = graph.Div(before, geometry.psd_refresh_size)
    # The PSDs of the kernel's newest and oldest block; see the preprocessor.
    for age in (BLOCK_SIZE, geometry.kernel_size):
        turns = graph.Sub(edges, age)
        turns = graph.Max(graph.Div(turns, geometry.psd_refresh_size), [1])
        turns = graph.Add(graph.Sub(turns, now), 1)
        turns = graph.Min(turns, graph.Sub(graph.size(psd, 0), 1))
        used = graph.Cast(graph.Gather(sound, turns, axis=0), to=TensorProto.BOOL)
        valid = graph.And(valid, used)
    return valid
