"""Client of the served model ``timeslides``: many slides in a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from chirpwatch.clustering import cluster_strides
from chirpwatch.errors import (
    ServerError,
    ShiftError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.limits import (
    MAX_LENGTH,
    MAX_SLIDE_LENGTH,
)
from chirpwatch.streamer.served import (
    KEEPALIVE,
    Output,
    describe,
    take_outputs,
)

MODEL = "timeslides"
SCORES: Mapping[str, type] = {
    "score": np.float32,
    "delay": np.float32,
    "valid": np.bool_,
}
"""Outputs for each stride, and their data types."""
PEAKS: Mapping[str, type] = {
    "peak": np.float32,
    "peak_stride": np.int64,
    "peak_delay": np.float32,
    "peak_is_event": np.bool_,
}
"""Outputs for each window of ``clustering.CLUSTER_LENGTH``, and their data types."""


@dataclass(frozen=True)
class SlideEvents:
    """The events of all slides, ordered by slide and stride.

    Attributes:
        valid: Whether each score depends on real data alone, bool [slides, strides].
        slide: Index of the event's slide, int64 [events].
        stride: Stride of the event's score, in the first detector's time, int64
            [events].
        statistic: The event's score, float32 [events].
        delay: Time by which the right edge of that stride lags the estimated merger,
            s, float32 [events].
    """

    valid: NDArray[Any]
    slide: NDArray[Any]
    stride: NDArray[Any]
    statistic: NDArray[Any]
    delay: NDArray[Any]


@dataclass(frozen=True)
class SlideScores:
    """Every score of each slide.

    Attributes:
        score: Logits, float32 [slides, strides].
        delay: Time by which each stride's right edge lags the estimated merger, s,
            float32 [slides, strides].
        valid: Whether each score depends on real data alone, bool [slides, strides].
    """

    score: NDArray[Any]
    delay: NDArray[Any]
    valid: NDArray[Any]


class Timeslides:
    """Client of the ``timeslides`` ensemble on a Triton server.

    A slide reads each detector but the first later than the first detector, by its
    shift, circularly within the stretch. The ensemble is stateless: a request may be
    repeated, and sent to any server of the same model.

    Args:
        address: ``host:port`` of the server's gRPC service.
        deadline: Longest wait for a response, s.

    Attributes:
        geometry: The geometry that the server publishes.
        model: Digest of the served models.

    Raises:
        ServerError: No server answers at the address.
        ModelError: It does not serve ``timeslides``, or publishes no geometry.
    """

    def __init__(self, address: str, deadline: float = 300) -> None:
        self.address = address
        self.deadline = deadline
        served = describe(address, MODEL)
        self.geometry, self.model = served.geometry, served.model

    def events(self, strain: NDArray[Any], shifts: NDArray[Any]) -> SlideEvents:
        """Find the events of each slide.

        The server clusters the scores with the same result as
        ``clustering.Clusterer``: an event is the loudest valid score of its window of 8
        s, if none within 8 s is louder.

        Args:
            strain: The stretch, [ifos, size], whole strides.
            shifts: How much later each detector but the first is read, feature frames,
                integers, [slides, ifos - 1]; may be negative.

        Raises:
            ShiftError: There are no shifts, a slide is given twice, or a shift is not
                shorter than the stretch or not a whole number of frames.
            StrainError: The stretch is shorter than the warm-up, longer than
                ``MAX_LENGTH``, or not a whole number of strides.
            ServerError: The server failed, or did not answer in time.
        """
        peak, stride, delay, is_event, valid = self._infer(
            strain, shifts, [*PEAKS, "valid"]
        )
        slide, window = np.nonzero(is_event)
        return SlideEvents(
            valid=valid,
            slide=slide,
            stride=stride[slide, window],
            statistic=peak[slide, window],
            delay=delay[slide, window],
        )

    def scores(self, strain: NDArray[Any], shifts: NDArray[Any]) -> SlideScores:
        """Compute every score of each slide; arguments and errors as for ``events``."""
        return SlideScores(*self._infer(strain, shifts, [*SCORES]))

    def _infer(
        self, strain: NDArray[Any], shifts: NDArray[Any], names: list[str]
    ) -> list[NDArray[Any]]:
        check_stretch(strain.shape, self.geometry)
        shifts = np.asarray(shifts)
        period = strain.shape[1] // self.geometry.frame_size
        check_shifts(shifts, period, len(self.geometry.ifos))
        strain = np.ascontiguousarray(strain[None], dtype=np.float32)
        shifts = np.ascontiguousarray(shifts, dtype=np.int64)
        length = strain.shape[2] / self.geometry.sample_rate
        batch_slides = int(MAX_SLIDE_LENGTH / length)
        parts = [
            self._request(strain, shifts[begin : begin + batch_slides], names)
            for begin in range(0, len(shifts), batch_slides)
        ]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _request(
        self, strain: NDArray[Any], shifts: NDArray[Any], names: list[str]
    ) -> list[NDArray[Any]]:
        inputs = [
            grpc.InferInput("strain", list(strain.shape), "FP32"),
            grpc.InferInput("shifts", list(shifts.shape), "INT64"),
        ]
        inputs[0].set_data_from_numpy(strain)
        inputs[1].set_data_from_numpy(shifts)
        outputs = self._outputs(len(shifts), strain.shape[2], names)
        request = (
            f"{len(shifts)} timeslides of {strain.shape[2]} samples, sent to "
            f"{self.address}"
        )
        client = grpc.InferenceServerClient(self.address, keepalive_options=KEEPALIVE)
        try:
            result = client.infer(
                MODEL,
                inputs,
                outputs=[grpc.InferRequestedOutput(name) for name in names],
                client_timeout=self.deadline,
            )
        except InferenceServerException as error:
            raise ServerError(f"{request}: {error.message()}") from None
        finally:
            client.close()
        return take_outputs(result, outputs, request)

    def _outputs(self, slides: int, size: int, names: list[str]) -> list[Output]:
        """The expected outputs for `slides` slides of a stretch of `size` samples."""
        strides = size // self.geometry.stride_size
        windows = -(-strides // cluster_strides(self.geometry))
        shapes = dict.fromkeys(SCORES, (slides, strides))
        shapes |= dict.fromkeys(PEAKS, (slides, windows))
        types = {**SCORES, **PEAKS}
        return [Output(name, types[name], shapes[name]) for name in names]


def check_stretch(shape: tuple[int, ...], geometry: Geometry) -> None:
    """Refuse a stretch that cannot be scored.

    Args:
        shape: Shape of the strain: [ifos, size].
        geometry: The analysis.

    Raises:
        StrainError: See ``Timeslides.events``.
    """
    ifos, stride = len(geometry.ifos), geometry.stride_size
    if len(shape) != 2 or shape[0] != ifos or shape[1] % stride:
        raise StrainError(
            f"a stretch: expected strain of {ifos} detectors and whole strides of "
            f"{stride} samples, found the shape {shape}"
        )
    length = shape[1] / geometry.sample_rate
    if not geometry.psd_min_length <= length <= MAX_LENGTH:
        raise StrainError(
            f"a stretch: expected at least {geometry.psd_min_length:g} s, the warm-up "
            f"of the PSD, and at most {MAX_LENGTH:g} s, found {length:g} s"
        )


def check_shifts(shifts: NDArray[Any], period: int, ifos: int) -> None:
    """Refuse shifts that are not distinct slides of a stretch.

    Args:
        shifts: Shifts in feature frames, [slides, ifos - 1].
        period: Length of the stretch in feature frames.
        ifos: Number of detectors.

    Raises:
        ShiftError: See ``Timeslides.events``.
    """
    if ifos < 2:
        raise ShiftError("timeslides need two detectors, found one")
    if shifts.ndim != 2 or shifts.shape[1] != ifos - 1 or not len(shifts):
        raise ShiftError(
            f"expected a list of at least one slide, each with shifts of {ifos - 1} "
            f"detector(s), found the shape {shifts.shape}"
        )
    if not np.issubdtype(shifts.dtype, np.integer):
        raise ShiftError(
            f"expected shifts in whole feature frames, found {shifts.dtype}"
        )
    if np.abs(shifts).max() >= period:
        row = np.abs(shifts).max(axis=1).argmax()
        raise ShiftError(
            f"slide {row}: expected shifts shorter than the stretch of {period} "
            f"feature frames, found {shifts[row].tolist()}"
        )
    turned, first, counts = np.unique(
        shifts % period, axis=0, return_index=True, return_counts=True
    )
    if counts.max() > 1:
        at = counts.argmax()
        raise ShiftError(
            f"slide {first[at]}: its shifts {turned[at].tolist()} (feature frames, "
            f"circularly within the stretch) are given {counts[at]} times"
        )
