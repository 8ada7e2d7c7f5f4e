"""Export of a trained network to a Triton model repository."""

import math
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from chirpwatch.errors import ModelError
from chirpwatch.export import (
    head,
    preprocessor,
    snapshotter,
    stream,
    timeslides,
)
from chirpwatch.export.networks import (
    export_networks,
    longest_delay,
    tiled,
)
from chirpwatch.export.parity import measure
from chirpwatch.export.repository import (
    UNTILED,
    write_repository,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.background import simulate_background
from chirpwatch.train.networks.models import Sliding

PACKAGES = ("onnx", "onnxruntime", "torch", "numpy")


def build_models(
    network: Sliding, peak_offset_size: float
) -> dict[str, onnx.ModelProto]:
    """Build the models of all ensembles, by name.

    The frontend for TensorRT is among them, as ``UNTILED``.

    Args:
        network: The trained network.
        peak_offset_size: See ``export.networks.HeadModel``.

    Raises:
        ModelError: The network is for a single detector, so timeslides are impossible.
    """
    geometry = network.geometry
    if len(geometry.ifos) < 2:
        raise ModelError(
            "export: expected a network for two detectors or more, found "
            f"{geometry.ifos[0]} alone: without timeslides a search has no "
            "false-alarm rates; train one for more detectors (data.geometry.ifos)"
        )
    frontend, network_head, sum_head = export_networks(network, peak_offset_size)
    stateful = snapshotter.build(geometry)
    with torch.no_grad():
        kernel = torch.zeros(1, len(geometry.ifos), geometry.kernel_size)
        kernel_frames = network.features(kernel).shape[-1]
    models = {
        "snapshotter": stateful,
        "stretch": timeslides.build_stretch(stateful, len(geometry.ifos)),
        "preprocessor": preprocessor.build(geometry),
        "frontend": tiled(geometry, frontend),
        UNTILED: frontend,
        "head": head.build(geometry, network_head),
        "slides": timeslides.build(geometry, sum_head, kernel_frames),
    }
    return models | {
        "stream_detector": stream.build(geometry, models),
        "stream_columns": stream.build_columns(),
    }


def export_repository(
    network: Sliding,
    peak_offset_size: float,
    provenance: dict[str, Any],
    reports: dict[str, str],
    path: str | Path,
) -> str:
    """Export a network to a model repository, which is written atomically.

    Args:
        network: The trained network.
        peak_offset_size: See ``export.networks.HeadModel``.
        provenance: Origin of the network: its training, as JSON values.
        reports: Text files, by name, written beside the models like the parity report.
        path: The model repository; an existing one is replaced.

    Returns:
        The models' digest.

    Raises:
        ModelError: The network is for a single detector, the models differ from the
            reference, or ``path`` holds something other than a model repository.
    """
    geometry = network.geometry
    models = build_models(network, peak_offset_size)
    parity = measure(models, geometry, network, parity_strain(geometry))
    versions = {name: metadata.version(name) for name in PACKAGES}
    return write_repository(
        path,
        geometry,
        models,
        longest_delay(geometry, peak_offset_size),
        provenance | {"export_versions": versions},
        reports | {"parity.json": parity.to_json()},
    )


def parity_strain(geometry: Geometry) -> NDArray[Any]:
    """Simulate strain for the parity report, with O3 noise curves: [1, ifos, size].

    It is longer than ``psd_length`` by four times ``psd_refresh_length``.
    """
    length = math.ceil(geometry.psd_length + 4 * geometry.psd_refresh_length)
    strain, _ = simulate_background(
        length, "O3", geometry.ifos, geometry.sample_rate, seed=0
    )
    result: NDArray[Any] = np.stack([strain[ifo] for ifo in geometry.ifos])[None]
    return result
