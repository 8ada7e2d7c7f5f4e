"""Significance of a catalogued detection in recorded strain.

Its statistic is compared with timeslides of the same strain, and with the background of
other strain, such as days of simulated noise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chirpwatch.background import Background
from chirpwatch.errors import (
    ShiftError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.train.data.whitening import (
    Design,
    design_filter,
)
from chirpwatch.train.evaluation.deployment import (
    whiten_stretch,
    whitened_start,
)
from chirpwatch.train.evaluation.scoring import (
    frames_of,
    kernel_frames,
    score_frames,
)
from chirpwatch.train.networks.models import Sliding


def find_segment(segments: Sequence[Segment], time: float) -> Segment:
    """Find the segment that contains a GPS time, s.

    Raises:
        StrainError: No segment contains the time.
    """
    for segment in segments:
        start = segment.t0_ns / NANOSECONDS
        if start <= time < start + segment.duration:
            return segment
    names = ", ".join(segment.name for segment in segments)
    raise StrainError(
        f"expected strain at GPS {time:.3f}, found the segments {names} in "
        f"{segments[0].source if segments else 'no file'}; give files that contain it"
    )


def check_shiftable(geometry: Geometry) -> None:
    """Check that a geometry has the two detectors that timeslides need.

    Raises:
        ShiftError: The geometry has a single detector.
    """
    if len(geometry.ifos) < 2:
        raise ShiftError(
            "background of recorded strain: expected at least two detectors for "
            f"timeslides, found only {geometry.ifos[0]}"
        )


@torch.inference_mode()
def rank_event(
    network: Sliding,
    segment: Segment,
    time: float,
    background: Background,
    design: Design = design_filter,
) -> dict[str, Any]:
    """Score an event, and count the kernels and background events as loud.

    Args:
        network: Network with a single-detector frontend, in evaluation mode.
        segment: Recorded strain of all detectors, long enough for valid scores.
        time: GPS time of the event, s.
        background: Background of this network in other strain.
        design: Designs a whitening filter from periodograms.

    Returns:
        JSON-ready: ``statistic``, the largest score of a kernel that contains the
        event; three tallies of kernels, each with the number of ``windows``, how many
        are ``as_loud``, and the ``loudest`` score: ``zero_lag`` (kernels away from the
        event), ``file`` (kernels of all timeslides) and ``file_without_event`` (those
        that contain the event in no detector); and ``background``: ``livetime`` (s),
        ``events``, how many are ``as_loud``, the ``loudest``, and the event's
        false-alarm rate, ``far_per_year`` and ``saturated``.

    Raises:
        ShiftError: There is a single detector.
        StrainError: No valid kernel contains the event.
    """
    check_shiftable(network.geometry)
    network, geometry = network.fused(), network.geometry
    whitened = [
        whiten_stretch(
            segment.read(ifo, 0, segment.size).astype(float), geometry, design=design
        )
        for ifo in geometry.ifos
    ]
    frames = frames_of(network, torch.from_numpy(np.stack(whitened)))
    kernel = kernel_frames(network)
    zero_lag = score_frames(network, frames.sum(0), kernel).numpy()
    kernels = len(zero_lag)
    # Event time in samples from the start of the first kernel.
    event = (time - segment.t0_ns / NANOSECONDS) * geometry.sample_rate
    event -= whitened_start(geometry)
    begins = np.arange(kernels) * geometry.stride_size
    within = (begins <= event) & (event < begins + geometry.kernel_size)
    if not within.any():
        raise StrainError(
            f"{segment.source}, segment {segment.name}: no valid kernel contains GPS "
            f"{time:.3f}; scores are valid after the first "
            f"{geometry.psd_min_length:g} s of strain"
        )
    slides, quiet = _slides(network, frames, within, kernel)
    statistic = float(zero_lag[within].max())
    # Away from the event: kernel and filter share no sample with the event's kernels.
    apart = geometry.kernel_size + geometry.filter_size
    elsewhere = (begins + geometry.kernel_size + apart < event) | (
        event + apart < begins
    )
    rate = background.far(statistic)
    return {
        "statistic": statistic,
        "zero_lag": _tally([zero_lag[elsewhere]], statistic),
        "file": _tally(slides, statistic),
        "file_without_event": _tally(quiet, statistic),
        "background": {
            "livetime": background.livetime,
            "events": background.size,
            "as_loud": rate.count,
            "loudest": background.loudest,
            "far_per_year": rate.far_per_year,
            "saturated": rate.saturated,
        },
    }


def _slides(
    network: Sliding, frames: Tensor, within: NDArray[Any], kernel: int
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Score all timeslides of a segment, without its ends: shifts are not circular.

    Args:
        network: In evaluation mode, fused.
        frames: From ``frames_of``, [ifos, channels, frames].
        within: Whether each zero-lag kernel contains the event, bool, [kernels].
        kernel: Frames in a kernel, from ``kernel_frames``.

    Returns:
        Scores of each timeslide, with and without the kernels that contain the event.
    """
    geometry, kernels = network.geometry, len(within)
    step = geometry.stride_size // geometry.frame_size
    # Kernels this far apart share neither strain nor whitening filter, and the light
    # travel time between detectors is far shorter.
    min_shift = (
        geometry.kernel_size + geometry.filter_size
    ) // geometry.stride_size + 1
    slides, quiet = [], []
    later = len(frames) - 1
    longest = (kernels - 1) // later
    for shift in [*range(min_shift, longest + 1), *range(-longest, 1 - min_shift)]:
        starts = [i * shift - min(0, later * shift) for i in range(len(frames))]
        count = kernels - later * abs(shift)
        size = (count - 1) * step + kernel
        summed = frames[0, :, starts[0] * step :][:, :size]
        touched = within[starts[0] : starts[0] + count]
        for other, start in zip(frames[1:], starts[1:], strict=True):
            summed = summed + other[:, start * step :][:, :size]
            touched = touched | within[start : start + count]
        scores = score_frames(network, summed, kernel).numpy()
        slides.append(scores)
        quiet.append(scores[~touched])
    return slides, quiet


def _tally(parts: list[NDArray[Any]], statistic: float) -> dict[str, Any]:
    """Count kernels, and those that score at least the event's statistic."""
    scores = np.concatenate(parts) if parts else np.empty(0)
    return {
        "windows": len(scores),
        "as_loud": int((scores >= statistic).sum()),
        "loudest": float(scores.max()) if len(scores) else None,
    }
