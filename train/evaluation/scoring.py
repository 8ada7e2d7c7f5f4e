"""How networks of each kind score windows, stretches and timeslides.

A network that looks at each detector alone first, which shows in its method
``features``, scores a timeslide by its head alone. Any other runs again.
"""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.baseline import SeedResNet

CHUNK_STRIDES, CHUNKS = 64, 8
"""Scores in a row, and rows, that the head makes at once: what fits a core's cache."""

CHUNK_LENGTH = 32
"""Strain that the frontend sees at once, s."""


def has_slides(network: Any) -> bool:
    """Whether a network looks at each detector alone first."""
    return hasattr(network, "features")


def device_of(network: Any) -> torch.device:
    """Where a network's weights are."""
    weight = next(network.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def score_windows(
    network: Any, windows: Float[Tensor, "n ifos time"], batch: int = 64
) -> Float[Tensor, " n"]:
    """Score single windows, [n, ifos, kernel_size]; one score each, float32, [n]."""
    device = device_of(network)
    pieces = (x.float().to(device) for x in torch.split(windows, batch))
    if isinstance(network, SeedResNet):
        return torch.cat([_score_fast(network, x) for x in pieces])
    return torch.cat([network(x)[:, 0].float() for x in pieces])


def _score_fast(
    network: SeedResNet, windows: Float[Tensor, "n ifos time"]
) -> Float[Tensor, " n"]:
    """Score windows with a trunk in bfloat16, [n].

    A window costs the reference a gigaflop: this takes 0.6 of the time, and is right to
    1 %. Mean and logit are in float32, or else many scores would be equal, and those
    that equal a threshold are not above it.
    """
    with torch.autocast(windows.device.type, torch.bfloat16):
        frames = network.trunk(windows)
    scores: Tensor = network.logit(frames.float().mean(-1))[:, 0]
    return scores


def score_stretch(
    network: Any, strain: Float[Tensor, "ifos time"]
) -> tuple[Float[Tensor, " strides"], Float[Tensor, " strides"] | None]:
    """Score every whole kernel of a whitened stretch.

    Args:
        network: In evaluation mode.
        strain: Whitened, [ifos, time].

    Returns:
        Scores [strides], and the frame of each kernel that tells the merger's time,
        alike; None for a network that does not tell.
    """
    geometry: Geometry = network.geometry
    strain, step = strain.to(device_of(network)), geometry.stride_size
    strides = (strain.shape[-1] - geometry.kernel_size) // step + 1
    scores, peaks = [], []
    chunk = 256 if isinstance(network, SeedResNet) else CHUNK_LENGTH * 8
    for first in range(0, strides, chunk):
        count = min(chunk, strides - first)
        size = (count - 1) * step + geometry.kernel_size
        piece = strain[None, :, first * step : first * step + size]
        if isinstance(network, SeedResNet):
            windows = piece[0].unfold(-1, geometry.kernel_size, step).transpose(0, 1)
            scores.append(score_windows(network, windows))
        elif has_slides(network):
            score, peak = network.head(network.features(piece))
            scores.append(score[0])
            peaks.append(peak[0])
        else:
            scores.append(network(piece)[0])
    return torch.cat(scores).float(), torch.cat(peaks) if peaks else None


def frames_of(
    network: Any, strain: Float[Tensor, "ifos time"]
) -> Float[Tensor, "ifos channels frames"]:
    """Projected frames of a whitened stretch, [ifos, channels, frames].

    Args:
        network: One that looks at each detector alone first.
        strain: Whitened, [ifos, time].
    """
    geometry: Geometry = network.geometry
    frame_size, step = geometry.frame_size, CHUNK_LENGTH * geometry.sample_rate
    strain = strain.to(device_of(network))
    # What the last frame of a piece reaches beyond its own samples, or a little more.
    overlap = geometry.kernel_size - kernel_frames(network) * frame_size
    pieces = []
    for start in range(0, strain.shape[-1] - overlap - frame_size + 1, step):
        piece = strain[None, :, start : start + step + overlap]
        pieces.append(network.features(piece)[0])
    return channels_last(torch.cat(pieces, -1))


def channels_last(
    frames: Float[Tensor, "*batch channels frames"],
) -> Float[Tensor, "*batch channels frames"]:
    """Lay frames out, [batch, channels, frames], so that channels lie together.

    PyTorch's pooling on the CPU takes a third of the time then.
    """
    return frames.transpose(1, 2).contiguous().transpose(1, 2)


def kernel_frames(network: Any) -> int:
    """Frames of one detector that one score is made of."""
    geometry: Geometry = network.geometry
    kernel = torch.zeros(1, len(geometry.ifos), geometry.kernel_size)
    return int(network.features(kernel.to(device_of(network))).shape[-1])


def slide_pieces(total: int, shift: int, ifos: int) -> list[tuple[list[int], int]]:
    """Cut a circular timeslide where a detector's data begin anew.

    Args:
        total: Length of the stretch.
        shift: By how much each detector is read later than the one before it, and
            around.
        ifos: Detectors.

    Returns:
        For each piece where each detector's data begin, and its length.
    """
    offsets = [i * shift % total for i in range(ifos)]
    cuts = sorted({0, total} | {total - offset for offset in offsets})
    return [
        ([(start + offset) % total for offset in offsets], stop - start)
        for start, stop in pairwise(cuts)
    ]


def score_slide(
    network: Any, frames: Float[Tensor, "ifos channels frames"], shift: int, kernel: int
) -> list[tuple[list[int], Float[Tensor, " _"]]]:
    """Score a timeslide of a stretch, piece by piece.

    Args:
        network: As of ``frames_of``.
        frames: From ``frames_of``, [ifos, channels, frames].
        shift: Frames by which each detector is read later than the one before it, and
            around.
        kernel: From ``kernel_frames``.

    Returns:
        For each piece at which frame each detector's begins, and the scores, [strides].
        No kernel lies in two pieces.
    """
    ifos, _, total = frames.shape
    parts = []
    for begins, size in slide_pieces(total, shift, ifos):
        if size >= kernel:
            summed = frames[0, :, begins[0] : begins[0] + size]
            for other, begin in zip(frames[1:], begins[1:], strict=True):
                summed = summed + other[:, begin : begin + size]
            parts.append((begins, score_frames(network, summed, kernel)))
    return parts


def score_frames(
    network: Any, total: Float[Tensor, "channels frames"], kernel: int
) -> Float[Tensor, " strides"]:
    """Score frames that were added up, [channels, frames], chunk by chunk."""
    return score_frames_and_peaks(network, total, kernel)[0]


def score_frames_and_peaks(
    network: Any, total: Float[Tensor, "channels frames"], kernel: int
) -> tuple[Float[Tensor, " strides"], Float[Tensor, " strides"]]:
    """Score frames that were added up, chunk by chunk.

    Args:
        network: As of ``frames_of``.
        total: Frames of all detectors, added, [channels, frames].
        kernel: From ``kernel_frames``.

    Returns:
        Scores, and the frame of each kernel that tells the merger's time, [strides].
    """
    step = network.geometry.stride_size // network.geometry.frame_size
    strides = (total.shape[-1] - kernel) // step + 1
    chunks, rest = divmod(strides, CHUNK_STRIDES)
    result = []
    if chunks:
        size = (CHUNK_STRIDES - 1) * step + kernel
        cut = total.unfold(-1, size, CHUNK_STRIDES * step)[:, :chunks].transpose(0, 1)
        result = [
            network.head.forward_sum(channels_last(piece))
            for piece in torch.split(cut, CHUNKS)
        ]
    if rest:
        tail = total[None, :, chunks * CHUNK_STRIDES * step :]
        result.append([x[:, :rest] for x in network.head.forward_sum(tail)])
    scores, peaks = (
        torch.cat([x.flatten() for x in parts]) for parts in zip(*result, strict=True)
    )
    return scores, peaks
