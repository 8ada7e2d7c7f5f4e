"""The models ``stretch`` and ``slides``, which score many timeslides of one stretch.

A stretch, which is gap-free strain, is whitened and converted to feature frames once.
Each timeslide then takes the other detectors' frames from later times than the first
detector's, circularly within the stretch, and runs only the head.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from chirpwatch.clustering import cluster_strides
from chirpwatch.export import whitening
from chirpwatch.export.graph import (
    Graph,
    Mapped,
    Value,
)
from chirpwatch.export.head import (
    finite_scores,
    usable_kernels,
)
from chirpwatch.export.layout import (
    Counts,
    Layout,
)
from chirpwatch.export.snapshotter import whole_kernels
from chirpwatch.geometry import Geometry

TILE_STRIDES = 128
"""Most strides of a slide that the head scores at once; their frames fit the cache."""

GROUP_SLIDES = 64
"""Most slides that are searched for events at once."""


def build_stretch(snapshotter: onnx.ModelProto, ifos: int) -> onnx.ModelProto:
    """Build the model ``stretch``: the snapshotter for sequences of a single request.

    Args:
        snapshotter: The model from ``export/snapshotter.py``'s ``build``.
        ifos: Number of detectors.

    Returns:
        A stateless model with the input ``strain`` and the outputs ``snapshot``,
        ``filters`` and ``position``, which is 0.
    """
    model = onnx.ModelProto()
    model.CopyFrom(snapshotter)
    graph = model.graph
    graph.name = "stretch"
    fixed: dict[str, NDArray[Any]] = {
        "state": np.zeros(1, np.float32),
        "position": np.zeros(ifos, np.int64),
    }
    for name, value in fixed.items():
        (at,) = [i for i, tensor in enumerate(graph.input) if tensor.name == name]
        del graph.input[at]
        graph.initializer.append(numpy_helper.from_array(value, name + "_zero"))
        node = helper.make_node("Identity", [name + "_zero"], [name], name=name)
        graph.node.insert(0, node)
    del graph.output[:]
    graph.output.extend(
        tensor
        for tensor in snapshotter.graph.output
        if tensor.name in {"snapshot", "filters"}
    )
    graph.output.append(
        helper.make_tensor_value_info("position", TensorProto.INT64, [ifos])
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def build(
    geometry: Geometry, head: onnx.ModelProto, kernel_frames: int
) -> onnx.ModelProto:
    """Build the model ``slides``.

    Inputs: ``features`` [1, ifos, channels, frames], ``usable`` [ifos, frames] and
    ``filters`` [filters, ifos, values] of one stretch, from the models upstream;
    ``shifts`` [slides, ifos - 1] int64, the number of feature frames by which each
    detector but the first is read later than the first, circularly within the stretch.
    Shifts may be negative.

    Outputs, with strides in the first detector's time: ``score`` and ``delay`` [slides,
    strides]; ``valid`` [slides, strides] bool, whether the score is finite and every
    detector's kernel has usable strain and is whitened by PSDs of real data. No kernel
    that wraps around the end of the stretch is valid. For each window of 8 s: ``peak``
    [slides, windows], the largest valid score, or minus infinity if there is none; the
    peak's ``peak_stride`` and ``peak_delay``; and ``peak_is_event``, whether no other
    valid score within 8 s is larger and no earlier one is equal.

    Args:
        geometry: The analysis.
        head: The head for features summed over the detectors: ``features`` [rows,
            channels, frames] to ``score`` and ``delay`` [rows, strides].
        kernel_frames: Frames that one score depends on.
    """
    channels = head.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    ifos = len(geometry.ifos)
    graph = Graph()
    score, delay, valid = _scores(graph, geometry, head, kernel_frames)
    peaks = _peaks(graph, geometry, score, delay, valid)
    return graph.model(
        "slides",
        inputs=[
            (
                "features",
                TensorProto.FLOAT,
                [1, ifos, channels, "frames"],
            ),
            ("usable", TensorProto.BOOL, [ifos, "strain_frames"]),
            (
                "filters",
                TensorProto.FLOAT,
                ["filters", ifos, Layout(geometry).filter_values],
            ),
            ("shifts", TensorProto.INT64, ["slides", ifos - 1]),
        ],
        outputs=[
            ("score", score, TensorProto.FLOAT, ["slides", "strides"]),
            ("delay", delay, TensorProto.FLOAT, ["slides", "strides"]),
            ("valid", valid, TensorProto.BOOL, ["slides", "strides"]),
            *peaks,
        ],
    )


def _scores(
    graph: Graph, geometry: Geometry, head: onnx.ModelProto, kernel_frames: int
) -> tuple[Value, Value, Value]:
    """Score all slides, in tiles: score, delay and validity, [slides, strides] each.

    Args:
        graph: The graph to extend, with the inputs of ``slides``.
        geometry: The analysis.
        head: The head for features summed over the detectors.
        kernel_frames: Frames that one score depends on.
    """
    ifos = len(geometry.ifos)
    stride_frames = geometry.stride_size // geometry.frame_size
    # Frames from before the start of the stretch, for the first scores' kernels.
    lead = kernel_frames - stride_frames
    period = graph.Sub(graph.size("features", 3), lead)
    strides = graph.Div(period, stride_frames)

    # A slide is scored in tiles of equal length; the last one is padded.
    tiles = graph.Div(graph.Add(strides, TILE_STRIDES - 1), TILE_STRIDES)
    tile_strides = graph.Div(graph.Sub(graph.Add(strides, tiles), [1]), tiles)
    tile_frames = graph.Mul(tile_strides, stride_frames)
    window = graph.Add(tile_frames, lead)

    features = graph.Squeeze("features", [0])
    in_stretch = graph.cut(features, [lead], None, axis=2)
    first = graph.Gather(features, [0], axis=0)
    padding = graph.Concat([0] * 5, window, axis=0)
    first = graph.Pad(first, padding)
    # The stretch is repeated, as it is read circularly. A kernel that begins before the
    # start of the stretch, or extends into the padding, is never valid.
    others = []
    for i in range(1, ifos):
        frames = graph.Gather(in_stretch, [i], axis=0)
        others.append(graph.Pad(graph.Concat(frames, frames, axis=2), padding))
    slides = graph.size("shifts", 0)
    circular_shifts = [
        graph.Mod(graph.Gather("shifts", i, axis=1), period) for i in range(ifos - 1)
    ]
    starts = [graph.Mod(graph.Sub(shift, lead), period) for shift in circular_shifts]
    flags = _flags(graph, geometry, period, tile_frames)

    def score_tile(body: Graph, trip: Value) -> list[Mapped]:
        trip = body.Unsqueeze(trip, [0])
        begin = body.Mul(body.Mod(trip, tiles), tile_frames)
        slide = body.Div(trip, tiles)
        total = body.cut(first, begin, body.Add(begin, window), axis=2)
        valid = sampled(body, flags[0], body.Add(begin, stride_frames - 1))
        for i in range(1, ifos):
            start = body.Gather(starts[i - 1], slide, axis=0)
            start = body.Add(start, begin)
            stop = body.Add(start, window)
            total = body.Add(total, body.cut(others[i - 1], start, stop, axis=2))
            edge = body.Add(body.Gather(circular_shifts[i - 1], slide, axis=0), begin)
            edge = body.Add(edge, stride_frames - 1)
            valid = body.And(valid, sampled(body, flags[i], edge))
        score, delay = body.inline(head, {"features": total})
        valid = body.And(valid, body.Squeeze(finite_scores(body, score), [0]))
        return [
            (body.Squeeze(score, [0]), TensorProto.FLOAT),
            (body.Squeeze(delay, [0]), TensorProto.FLOAT),
            (valid, TensorProto.BOOL),
        ]

    def sampled(body: Graph, flags: Value, edge: Value) -> Value:
        """Sample a flag for each of a tile's strides, starting at frame ``edge``."""
        stop = body.Add(edge, tile_frames)
        result: str = body.Slice(flags, edge, stop, [0], [stride_frames])
        return result

    trips = graph.Mul(slides, tiles)
    shape = graph.Concat(slides, [-1], axis=0)
    score, delay, valid = (
        graph.cut(graph.Reshape(x, shape), [0], strides, axis=1)
        for x in graph.map(graph.Squeeze(trips), score_tile)
    )
    return score, delay, valid


def _flags(
    graph: Graph, geometry: Geometry, period: Value, spare: Value
) -> list[Value]:
    """Whether the kernel that ends with each frame is usable and whole.

    Args:
        graph: The graph to extend.
        geometry: The analysis.
        period: Frames in the stretch, int64 [1].
        spare: Frames to add as padding for the last tile, int64 [1].

    Returns:
        For each detector, flags for the stretch, repeated as it is read circularly:
        bool [2 * period + spare]. Frame ``f`` ends at sample ``(f + 1) * frame_size``.
    """
    ordinals = graph.Range(1, graph.Add(graph.Squeeze(period), 1), 1)
    edges = graph.Mul(ordinals, geometry.frame_size)
    size = graph.Mul(period, geometry.frame_size)
    counts = Counts.of(graph, geometry, graph.value([0]), size)
    nonzero = whitening.nonzero(graph, "filters")
    # Kernels that end before the first stride's are never whole.
    ahead = geometry.stride_size // geometry.frame_size - 1
    usable = usable_kernels(graph, geometry, "usable", ahead, 1)
    flags = []
    for i in range(len(geometry.ifos)):
        own = graph.Gather(nonzero, i, axis=1)
        flag = whole_kernels(graph, geometry, own, edges, counts)
        flag = graph.And(flag, graph.Gather(usable, i, axis=0))
        bits = graph.Cast(flag, to=TensorProto.INT64)
        bits = graph.Pad(
            graph.Concat(bits, bits, axis=0), graph.Concat([0], spare, axis=0)
        )
        flags.append(graph.Cast(bits, to=TensorProto.BOOL))
    return flags


def _peaks(
    graph: Graph, geometry: Geometry, score: Value, delay: Value, valid: Value
) -> list[tuple[str, Value, int, list[str]]]:
    """Build the outputs for the loudest valid score in each window; see ``build``.

    The rule is ``chirpwatch.clustering.find_events``'s. A window is as long as an
    event's reach, so that it holds one event at most.
    """
    reach = cluster_strides(geometry)
    slides, strides = (graph.size(score, axis) for axis in (0, 1))
    windows = graph.Div(graph.Add(strides, reach - 1), reach)
    # Slides are searched in groups of equal size, which bounds the memory. The last
    # group is filled up with copies of the last slide.
    groups = graph.Div(graph.Add(slides, GROUP_SLIDES - 1), GROUP_SLIDES)
    group = graph.Div(graph.Sub(graph.Add(slides, groups), [1]), groups)

    def find(body: Graph, trip: Value) -> list[Mapped]:
        begin = body.Mul(body.Unsqueeze(trip, [0]), group)
        stop = body.Add(begin, group)
        rows = body.Range(body.Squeeze(begin), body.Squeeze(stop), 1)
        rows = body.Min(rows, body.Sub(slides, 1))
        own = [body.Gather(x, rows, axis=0) for x in (score, delay, valid)]
        return _group_peaks(body, reach, windows, *own)

    shape = graph.Concat([-1], windows, axis=0)
    types = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL)
    names = ("peak", "peak_stride", "peak_delay", "peak_is_event")
    peaks = graph.map(graph.Squeeze(groups), find)
    return [
        (
            name,
            graph.cut(graph.Reshape(x, shape), [0], slides, axis=0),
            element,
            ["slides", "windows"],
        )
        for name, x, element in zip(names, peaks, types, strict=True)
    ]


def _group_peaks(
    graph: Graph,
    reach: int,
    windows: Value,
    score: Value,
    delay: Value,
    valid: Value,
) -> list[Mapped]:
    """Find each window's loudest valid score, and whether it is an event.

    Args:
        graph: The graph to extend.
        reach: Strides in a window, an event's reach.
        windows: Number of windows, int64 [1].
        score: [slides, strides].
        delay: [slides, strides].
        valid: bool [slides, strides].

    Returns:
        Score, stride, delay and whether it is an event, [slides, windows] each.
    """
    lowest = float("-inf")
    strides = graph.size(score, 1)
    masked = graph.Where(valid, score, lowest)
    # Pad the last window, and add one window before the first and after the last.
    after = graph.Add(graph.Sub(graph.Mul(windows, reach), strides), reach)
    ends = graph.Concat([0, reach, 0], after, axis=0)
    padded = graph.Pad(masked, ends, lowest)

    # `loudest[i]` is the maximum of `reach` strides from i on. It is built
    # from maxima over spans that double in length.
    loudest, span = padded, 1
    while span < reach:
        step = min(span, reach - span)
        later = graph.Pad(
            graph.cut(loudest, [step], None, axis=1), [0, 0, 0, step], lowest
        )
        loudest = graph.Max(loudest, later)
        span += step

    in_windows = graph.cut(padded, [reach], [-reach], axis=1)
    rows = graph.Reshape(in_windows, [0, -1, reach])
    peak = graph.ReduceMax(rows, [2], keepdims=0)
    within = graph.ArgMax(rows, axis=2, keepdims=0)
    begins = graph.Mul(graph.Range(0, graph.Squeeze(windows), 1), reach)
    stride = graph.Add(within, begins)
    # Stride s has the index s + reach in `padded`.
    before = graph.GatherElements(loudest, stride, axis=1)
    behind = graph.GatherElements(loudest, graph.Add(stride, reach + 1), axis=1)
    is_event = graph.And(
        graph.And(graph.GreaterOrEqual(peak, behind), graph.Greater(peak, before)),
        graph.Greater(peak, lowest),
    )
    # If the last window has no valid score, its stride may lie beyond the stretch.
    inside = graph.Min(stride, graph.Sub(strides, 1))
    return [
        (peak, TensorProto.FLOAT),
        (inside, TensorProto.INT64),
        (graph.GatherElements(delay, inside, axis=1), TensorProto.FLOAT),
        (is_event, TensorProto.BOOL),
    ]
