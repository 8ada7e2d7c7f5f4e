"""Where an event in recorded strain stands among the background.

Its statistic is compared with every pair of kernels of the same strain that lie apart
in time, and with simulated background of days.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from chirpwatch.errors import StrainError
from chirpwatch.statistics import Background
from chirpwatch.strain import NANOSECONDS, Segment
from train.deployment import whiten_stretch
from train.network import Network
from train.scoring import frames_of, kernel_frames, score_frames


def find_segment(segments: Sequence[Segment], time: float) -> Segment:
    """Segment that holds a time.

    Raises:
        StrainError: None does.
    """
    for segment in segments:
        start = segment.t0_ns / NANOSECONDS
        if start <= time < start + segment.duration:
            return segment
    names = ", ".join(segment.name for segment in segments)
    raise StrainError(f"expected strain at GPS {time:.3f}, found segments {names}")


@torch.inference_mode()
def rank_event(
    network: Network, segment: Segment, time: float, background: Background
) -> dict[str, Any]:
    """Score an event, and every background window of the strain that it lies in.

    Args:
        network: In evaluation mode; one that looks at each detector alone first.
        segment: Recorded strain of all detectors, as long as there are valid scores.
        time: GPS time of the event, s.
        background: Background of this network in other strain.

    Returns:
        JSON-ready: ``statistic``, the largest score of a kernel that contains the
        event; ``zero_lag``, the kernels elsewhere in the strain; ``file``, its
        background windows, each pair of kernels that is apart, and
        ``file_without_event``, those of them that do not hold the event in either
        detector: ``windows``, how many are ``as_loud``, and the ``loudest``;
        ``background``: ``livetime`` (s), ``events``, how many are ``as_loud``, the
        ``loudest``, and the false-alarm rate of the statistic.

    Raises:
        StrainError: No valid kernel contains the event.
    """
    network, geometry = network.fused(), network.geometry
    step = geometry.stride_size // geometry.frame_size
    whitened = [
        whiten_stretch(segment.read(ifo, 0, segment.size).astype(float), geometry)
        for ifo in geometry.ifos
    ]
    frames = frames_of(network, torch.from_numpy(np.stack(whitened)))
    kernel = kernel_frames(network)
    zero_lag = score_frames(network, frames.sum(0), kernel).numpy()
    kernels = len(zero_lag)
    # The first kernel begins a kernel and half a filter before its score's time.
    first = (geometry.warmup_strides + 1) * geometry.stride_size
    first -= geometry.filter_size // 2 + geometry.kernel_size
    event = (time - segment.t0_ns / NANOSECONDS) * geometry.sample_rate - first
    begins = np.arange(kernels) * geometry.stride_size
    within = (begins <= event) & (event < begins + geometry.kernel_size)
    if not within.any():
        raise StrainError(
            f"{segment.source}, segment {segment.name}: no valid kernel contains GPS "
            f"{time:.3f}; the first ones need {geometry.psd_min_length:g} s of strain"
        )
    # Pairs this far apart share neither strain nor a whitening filter, and no signal
    # travels so long between detectors.
    least = (geometry.kernel_size + geometry.filter_size) // geometry.stride_size + 1
    slides, quiet = [], []
    for shift in [*range(least, kernels), *range(1 - kernels, 1 - least)]:
        one, two = max(-shift, 0), max(shift, 0)
        count = kernels - abs(shift)
        size = (count - 1) * step + kernel
        pair = frames[0, :, one * step :][:, :size]
        pair = pair + frames[1, :, two * step :][:, :size]
        scores = score_frames(network, pair, kernel).numpy()
        touched = within[one : one + count] | within[two : two + count]
        slides.append(scores)
        quiet.append(scores[~touched])
    statistic = float(zero_lag[within].max())
    # Elsewhere: no sample of the kernel or its filter is one of the event's kernels'.
    apart = geometry.kernel_size + geometry.filter_size
    elsewhere = (begins + geometry.kernel_size + apart < event) | (
        event + apart < begins
    )

    def tally(parts: list[np.ndarray]) -> dict[str, Any]:
        scores = np.concatenate(parts) if parts else np.empty(0)
        return {
            "windows": len(scores),
            "as_loud": int((scores >= statistic).sum()),
            "loudest": float(scores.max()) if len(scores) else None,
        }

    rate = background.far(statistic)
    return {
        "statistic": statistic,
        "zero_lag": tally([zero_lag[elsewhere]]),
        "file": tally(slides),
        "file_without_event": tally(quiet),
        "background": {
            "livetime": background.livetime,
            "events": background.size,
            "as_loud": rate.count,
            "loudest": background.loudest,
            "far_per_year": rate.far_per_year,
            "saturated": rate.saturated,
        },
    }
