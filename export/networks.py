"""The network's frontend and head as ONNX models."""

import logging
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float
from onnx import TensorProto
from torch import Tensor, nn

from chirpwatch.export.graph import (
    IR_VERSION,
    OPSET,
    Graph,
    Value,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.models import Sliding

TILE_FRAMES = 256
"""Largest number of frames that the frontend computes at once, on a CPU."""


class FrontendModel(nn.Module):
    """The network's frontend: from whitened strain to feature frames.

    Args:
        network: The network, with BatchNorm folded into its convolutions.
    """

    def __init__(self, network: Sliding) -> None:
        super().__init__()
        self.network = network

    def forward(self, whitened: Tensor) -> Tensor:
        """Map [rows, ifos, samples] to [rows, ifos, channels, frames]."""
        return self.network.features(whitened)


def longest_delay(geometry: Geometry, peak_offset_size: float) -> float:
    """Delay of a score whose merger lies in the kernel's first frame, s.

    It is the largest delay that the head can give; see ``HeadModel.forward``.

    Args:
        geometry: The network's geometry.
        peak_offset_size: See ``HeadModel``.
    """
    size = geometry.kernel_size + geometry.filter_size // 2 - peak_offset_size
    return size / geometry.sample_rate


class HeadModel(nn.Module):
    """The network's head: from feature frames to scores and delays.

    Args:
        network: The network, with BatchNorm folded into its convolutions.
        peak_offset_size: Samples from the start of the loudest frame to the merger, as
            calibrated in training.
    """

    def __init__(self, network: Sliding, peak_offset_size: float) -> None:
        super().__init__()
        self.head = network.head
        geometry = network.geometry
        self.frame_length = geometry.frame_size / geometry.sample_rate
        self.longest_delay = longest_delay(geometry, peak_offset_size)

    def forward(
        self, features: Float[Tensor, "rows ifos channels frames"]
    ) -> tuple[Float[Tensor, "rows strides"], Float[Tensor, "rows strides"]]:
        """Score each kernel and estimate the merger's time in it.

        Args:
            features: [rows, ifos, channels, frames].

        Returns:
            Two tensors [rows, strides]: the score, a logit; and the delay, s, by which
            the right edge of the score's strain lags the estimated merger.
        """
        return self._timed(*self.head(features))

    def _timed(self, score: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
        return score, self.longest_delay - self.frame_length * peak


class SumHeadModel(HeadModel):
    """The head for frames already summed over the detectors, for timeslides."""

    def forward(
        self, features: Float[Tensor, "rows channels frames"]
    ) -> tuple[Float[Tensor, "rows strides"], Float[Tensor, "rows strides"]]:
        """Score each kernel and estimate the merger's time in it.

        Args:
            features: Summed over the detectors, [rows, channels, frames].

        Returns:
            The same as ``HeadModel.forward``.
        """
        return self._timed(*self.head.forward_sum(features))


def export_networks(
    network: Sliding, peak_offset_size: float
) -> tuple[onnx.ModelProto, onnx.ModelProto, onnx.ModelProto]:
    """Export the frontend and two heads, for any number of rows and any length.

    Args:
        network: The trained network.
        peak_offset_size: See ``HeadModel``.

    Returns:
        The frontend (``whitened`` to ``features``), the head (``features`` to
        ``score`` and ``delay``), and the head for features summed over the detectors
        (``features`` [rows, channels, frames]).
    """
    fused = network.fused()
    geometry = network.geometry
    # Without bounds the exporter derives guards that overflow 32 bits.
    rows = torch.export.Dim("rows", min=1, max=2**12)
    # Whitened strain is a whole number of frames, as a stride is. "whole" is part of
    # the exported models.
    whole_frames = torch.export.Dim(
        "whole", min=geometry.kernel_size // geometry.frame_size, max=2**20
    )
    samples = geometry.frame_size * whole_frames
    frames = _frames(fused)
    whitened = torch.zeros(2, len(geometry.ifos), 4 * geometry.kernel_size)
    with torch.no_grad():
        features = fused.features(whitened)
    frontend = _export(
        FrontendModel(fused),
        whitened,
        ["whitened"],
        ["features"],
        {"whitened": {0: rows, 2: samples}},
    )
    head = _export(
        HeadModel(fused, peak_offset_size),
        features,
        ["features"],
        ["score", "delay"],
        {"features": {0: rows, 3: frames}},
    )
    sum_head = _export(
        SumHeadModel(fused, peak_offset_size),
        features.sum(1),
        ["features"],
        ["score", "delay"],
        {"features": {0: rows, 2: frames}},
    )
    return frontend, head, sum_head


def _frames(network: Sliding) -> Any:
    """Dynamic number of a head's input frames.

    It is a whole number of strides if the kernel is, which the exporter must know.
    """
    geometry = network.geometry
    kernel_frames = network.head.kernel_frames
    stride_frames = geometry.stride_size // geometry.frame_size
    if kernel_frames % stride_frames:
        return torch.export.Dim("frames", min=kernel_frames + 2, max=2**20)
    strides = torch.export.Dim("strides", min=kernel_frames // stride_frames, max=2**17)
    return stride_frames * strides


def tiled(geometry: Geometry, frontend: onnx.ModelProto) -> onnx.ModelProto:
    """Build a frontend that computes a long input in tiles, to bound the memory.

    Tiles overlap by a frame's receptive field, so that the frames equal those of the
    frontend itself.

    Args:
        geometry: The analysis.
        frontend: The frontend, from ``whitened`` [rows, ifos, samples] to ``features``
            [rows, ifos, channels, frames].
    """
    whitened, features = frontend.graph.input[0], frontend.graph.output[0]
    ifos, channels = (
        features.type.tensor_type.shape.dim[axis].dim_value for axis in (1, 2)
    )
    receptive_size = _receptive_size(geometry, frontend)
    graph = Graph()
    frames = graph.Sub(graph.size("whitened", 2), receptive_size)
    frames = graph.Add(graph.Div(frames, geometry.frame_size), 1)
    trips = graph.Div(graph.Add(frames, TILE_FRAMES - 1), TILE_FRAMES)

    def make(body: Graph, trip: Value) -> Value:
        first = body.Mul(body.Unsqueeze(trip, [0]), TILE_FRAMES)
        last = body.Sub(body.Min(body.Add(first, TILE_FRAMES), frames), 1)
        begin = body.Mul(first, geometry.frame_size)
        stop = body.Add(body.Mul(last, geometry.frame_size), receptive_size)
        piece = body.cut("whitened", begin, stop, axis=2)
        return body.inline(frontend, {whitened.name: piece})[0]

    shape = graph.Concat(graph.size("whitened", 0), [ifos, channels, 0], axis=0)
    nothing = graph.ConstantOfShape(shape)
    joined = graph.collect(graph.Squeeze(trips), nothing, 3, make)
    return graph.model(
        "frontend",
        inputs=[("whitened", TensorProto.FLOAT, ["rows", ifos, "samples"])],
        outputs=[
            (
                "features",
                joined,
                TensorProto.FLOAT,
                ["rows", ifos, channels, "frames"],
            )
        ],
    )


def _receptive_size(geometry: Geometry, frontend: onnx.ModelProto) -> int:
    """Receptive field of a feature frame, samples.

    It is the distance from the start of a kernel's last frame to the kernel's end.
    """
    session = onnxruntime.InferenceSession(frontend.SerializeToString())
    shape = (1, len(geometry.ifos), geometry.kernel_size)
    (features,) = session.run(None, {"whitened": np.zeros(shape, np.float32)})
    result: int = geometry.kernel_size - (features.shape[3] - 1) * geometry.frame_size
    return result


def _export(
    module: nn.Module,
    example: Tensor,
    inputs: list[str],
    outputs: list[str],
    dynamic_shapes: dict[str, dict[int, object]],
) -> onnx.ModelProto:
    # The exporter warns about operators of packages that are not needed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module.eval(),
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=dynamic_shapes,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.ir_version = min(model.ir_version, IR_VERSION)
    # The exporter records each node's origin, including paths on the exporting machine.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in model.graph.value_info:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model
