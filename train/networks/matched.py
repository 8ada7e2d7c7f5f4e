"""The network ``matched``: matched filters beside a learned frontend.

Each detector's whitened strain is filtered with a template bank. For each group of
templates of similar chirp mass, and each 1/64 s, the largest |z|²/2 is kept. Up to a
constant, this is the log-likelihood ratio of a signal against noise. A ceiling limits
it. The network computes the ceiling from these values and from a learned frontend's
frames; where they look like a glitch, the ceiling is low.

The head sums the detectors' limited values, and takes each group's maximum over the
kernel. It combines the groups by log-sum-exp, each weighted by a learned prior. A
small network adds a second term, from learned channels that are summed and maximised
in the same way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chirpwatch.errors import (
    GeometryError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.bank import Bank
from chirpwatch.train.networks.filters import SUB_BANKS, MatchedFilters, SubBank
from chirpwatch.train.networks.network import (
    Frontend,
    Network,
    fused,
)

LARGEST, MIDDLE = 120.0, 40.0
"""Largest log-likelihood ratio that is not clamped, and the constant that the
log-sum-exp subtracts before it takes exponentials."""


class MatchedHead(nn.Module):
    """Sums the detectors' values and scores every kernel.

    The score depends on each channel's maximum over the kernel only.

    Args:
        groups: Number of template groups.
        coarse: Number of coarse groups, which join several groups and have no ceiling.
        channels: Number of learned channels.
        kernel_frames: Frames within one kernel.
        stride_frames: Frames between two scores.
    """

    HIDDEN = 24
    # Rough mean and standard deviation of the three terms, for noise and signals.
    CENTERS, SPREADS = (16.0, 20.0, 0.0), (3.0, 5.0, 4.0)

    def __init__(
        self,
        groups: int,
        coarse: int,
        channels: int,
        kernel_frames: int,
        stride_frames: int,
    ) -> None:
        super().__init__()
        self.groups, self.coarse = groups, coarse
        self.kernel_frames, self.stride_frames = kernel_frames, stride_frames
        self.prior = nn.Parameter(torch.zeros(groups, 1))
        self.coarse_prior = nn.Parameter(torch.zeros(coarse, 1))
        self.learned = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(channels, self.HIDDEN, 1),
            nn.ReLU(),
            nn.Conv1d(self.HIDDEN, 1, 1),
        )
        self.weights = nn.Parameter(torch.tensor([1.0, 0.1]))
        self.offset: nn.Parameter = nn.Parameter(torch.tensor(-16.0))
        self.combine = nn.Sequential(
            nn.Conv1d(3, self.HIDDEN, 1),
            nn.ReLU(),
            nn.Conv1d(self.HIDDEN, self.HIDDEN, 1),
            nn.ReLU(),
            nn.Conv1d(self.HIDDEN, 1, 1),
        )
        last = self.combine[-1]
        assert isinstance(last, nn.Conv1d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("centers", torch.tensor(self.CENTERS)[:, None])
        self.register_buffer("spreads", torch.tensor(self.SPREADS)[:, None])
        self.centers: Tensor
        self.spreads: Tensor
        self.register_buffer("frames", torch.eye(kernel_frames)[:, None])
        self.frames: Tensor

    def forward(
        self, features: Float[Tensor, "batch ifos channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score every complete kernel; see ``network.Head.forward``."""
        return self.forward_sum(features.sum(1))

    def forward_sum(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score kernels, given the detectors' sum; see ``network.Head.forward_sum``."""
        score, salience = self.evaluate(total)
        return score, salience.argmax(1).float()

    def evaluate(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[
        Float[Tensor, "batch strides"], Float[Tensor, "batch kernel_frames strides"]
    ]:
        """Compute scores and salience; see ``network.Head.evaluate``.

        Args:
            total: Sum of the detectors' values, [batch, groups + coarse + channels + 1,
                frames].
        """
        limited, coarse, learned = self.terms(total)
        x = torch.stack([limited, coarse.clamp(max=50), learned], 1)
        x = (x - self.centers) / self.spreads
        score = self.weights[0] * limited + self.weights[1] * learned + self.offset
        salience = nn.functional.conv1d(
            total[:, -1:], self.frames.to(total.dtype), stride=self.stride_frames
        )
        return score + self.combine(x).squeeze(1), salience

    def terms(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[
        Float[Tensor, "batch strides"],
        Float[Tensor, "batch strides"],
        Float[Tensor, "batch strides"],
    ]:
        """The three terms of the score.

        Args:
            total: As for ``evaluate``.

        Returns:
            Log-likelihood ratio from the limited groups, the same from the coarse
            groups, and the score of the learned channels, [batch, strides] each.
        """
        largest = self._largest(total)
        limited = largest[:, : self.groups] + self.prior
        stop = self.groups + self.coarse
        coarse = largest[:, self.groups : stop] + self.coarse_prior
        learned = self.learned(largest[:, stop:-1])
        return _add_likelihoods(limited), _add_likelihoods(coarse), learned.squeeze(1)

    def _largest(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> Float[Tensor, "batch channels strides"]:
        """Maximum of each channel over each kernel, [batch, channels, strides]."""
        # Kernels overlap: the maximum of each stride is computed once for all kernels.
        step, count = self.stride_frames, self.kernel_frames // self.stride_frames
        if not torch.compiler.is_exporting():
            # The exported head gets whole strides only, and need not cut its input.
            total = total[..., : total.shape[-1] // step * step]
        parts = total.unflatten(-1, (-1, step)).amax(-1)
        largest: Tensor = parts[..., count - 1 :]
        for i in range(1, count):
            largest = torch.maximum(largest, parts[..., count - 1 - i : -i])
        return largest


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), from operators that ONNX Runtime vectorises.

    ONNX Runtime's Softplus takes three times as long.
    """
    return torch.relu(x) + (1 + (-x.abs()).exp()).log()


def _add_likelihoods(
    logarithms: Float[Tensor, "batch channels strides"],
) -> Float[Tensor, "batch strides"]:
    """Log-sum-exp over channels, [batch, strides].

    It subtracts the constant ``MIDDLE`` in place of the maximum, which saves a pass:
    exponentials of -80 to 80 fit into single precision.
    """
    x = logarithms.float().clamp(-MIDDLE, LARGEST) - MIDDLE
    return x.exp().sum(1).log() + MIDDLE


class MatchedNetwork(nn.Module):
    """The network ``matched``: matched filters and a learned frontend under one head.

    Args:
        geometry: Kernel, stride and frame sizes.
        sub_banks: Parts of the bank, each a ``SubBank`` or its attributes as a mapping.
        groups: Number of template groups.
        width: Channels of the learned frontend's stem.
        channels: Learned channels that are summed over detectors.
        hidden: Channels from which the ceilings are computed.

    Attributes:
        start: First frame of the matched filters that is used.
        offset, stop: First frame of the learned frontend that is used, and the index
            after the last one (negative or None). They cover the same merger times.
        peak_size: Samples from the kernel's start to the merger that its first frame
            marks.

    Raises:
        GeometryError: The kernel is too short for the filters, the frame size is not
            supported, or the groups do not fit the sub-banks.
    """

    # Larger filter outputs are clamped: beyond this, loudness does not help to tell
    # signals from glitches.
    CLAMP, COARSE_CLAMP = 100.0, 60.0
    COARSE_GROUPS = 8
    CEILING_SCALE, SOFTNESS = 4.0, 1.5
    FIRST_CEILING = 28.0
    # A ceiling also depends on the frames before its own, where a glitch may show. It
    # depends on none after it, so that mergers near the kernel's end are not missed.
    TAPS, WIDTH = 5, 48
    FRAMES_BEFORE = 2 * (TAPS - 1)

    def __init__(
        self,
        geometry: Geometry,
        sub_banks: Sequence[SubBank | Mapping[str, Any]] = SUB_BANKS,
        groups: int = 64,
        width: int = 16,
        channels: int = 16,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        parts = [x if isinstance(x, SubBank) else SubBank(**x) for x in sub_banks]
        self.hyperparameters = {
            "sub_banks": [
                {
                    "templates": part.templates,
                    "ranks": list(part.ranks),
                    "lengths": list(part.lengths),
                }
                for part in parts
            ],
            "groups": groups,
            "width": width,
            "channels": channels,
            "hidden": hidden,
        }
        self.matched = MatchedFilters(parts, groups, geometry.frame_size)
        self.frontend = Frontend(geometry.frame_size, width)
        self.groups = groups
        inputs = groups + self.frontend.channels
        self.norm: nn.Module = nn.BatchNorm1d(inputs, affine=False)
        self.hidden = nn.Sequential(
            nn.Conv1d(inputs, self.WIDTH, 1),
            nn.ReLU(),
            nn.Conv1d(self.WIDTH, self.WIDTH, self.TAPS),
            nn.ReLU(),
            nn.Conv1d(self.WIDTH, hidden, self.TAPS),
            nn.ReLU(),
        )
        self.ceiling = nn.Conv1d(hidden, groups, 1)
        nn.init.zeros_(self.ceiling.weight)
        assert self.ceiling.bias is not None
        nn.init.constant_(self.ceiling.bias, self.FIRST_CEILING)
        self.projection = nn.Conv1d(inputs + hidden, channels, 1)
        self.salience = nn.Conv1d(hidden, 1, 1, bias=False)
        spare_size = geometry.kernel_size - self.matched.receptive_field
        if spare_size < 0:
            raise GeometryError(
                f"kernel_length: expected at least the matched filters' receptive "
                f"field of {self.matched.receptive_field} samples, found "
                f"{geometry.kernel_size}"
            )
        stride_frames = geometry.stride_size // geometry.frame_size
        # The head needs whole strides of frames. The first frames are dropped, since
        # they cover the mergers farthest from the kernel's end.
        kernel_frames = spare_size // geometry.frame_size + 1 - self.FRAMES_BEFORE
        self.start = kernel_frames % stride_frames
        kernel_frames -= self.start
        if kernel_frames < stride_frames:
            further = self.FRAMES_BEFORE + stride_frames - 1
            least = self.matched.receptive_field + further * geometry.frame_size
            raise GeometryError(
                f"kernel_length: expected at least {least} samples, the matched "
                f"filters' receptive field and {further} more frames; found "
                f"{geometry.kernel_size}"
            )
        # Choose the learned frontend's frames that cover the same merger times.
        peak_size = self.matched.merger_size + self.matched.reach_size / 2
        peak_size += self.start * geometry.frame_size
        learned_size = Network.PEAK_FRACTION * self.frontend.receptive_field
        spare_size = geometry.kernel_size - self.frontend.receptive_field
        latest = spare_size // geometry.frame_size + 1
        latest -= kernel_frames + self.FRAMES_BEFORE
        offset = round((peak_size - learned_size) / geometry.frame_size)
        self.offset = max(0, min(offset, latest))
        self.stop = self.offset - latest or None
        self.peak_size = peak_size + self.FRAMES_BEFORE * geometry.frame_size
        self.head = MatchedHead(
            groups,
            groups // self.COARSE_GROUPS,
            channels,
            kernel_frames=kernel_frames,
            stride_frames=stride_frames,
        )

    def set_bank(self, bank: Bank) -> list[float]:
        """Set the filters and the groups' priors from a bank.

        For returned value and errors, see ``MatchedFilters.set_bank``.
        """
        lost = self.matched.set_bank(bank, self.geometry)
        share = torch.tensor(bank.share, dtype=torch.float32)
        prior = share.reshape(self.groups, -1).sum(1, keepdim=True)
        prior = prior.clamp(min=1e-4)
        self.head.prior.data[:] = prior.log()
        coarse = prior.reshape(-1, self.COARSE_GROUPS, 1).sum(1)
        self.head.coarse_prior.data[:] = coarse.log()
        return lost

    def set_learned(self, network: Network) -> None:
        """Copy the learned frontend's weights from a network ``split``."""
        self.frontend.load_state_dict(network.frontend.state_dict())

    def offsets(self) -> list[nn.Parameter]:
        """Biases in the score's unit, which are trained at a higher learning rate."""
        head, bias = self.head, self.ceiling.bias
        assert isinstance(bias, nn.Parameter)
        return [head.prior, head.coarse_prior, head.offset, bias]

    def features(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch ifos channels frames"]:
        """Compute each detector's values, which the head sums over detectors.

        Args:
            x: Whitened strain, [batch, ifos, time], a whole number of frames.

        Returns:
            [batch, ifos, groups + coarse + channels + 1, frames]: the groups' limited
            log-likelihood ratios, the coarse groups' unlimited ones, the learned
            channels, and the frame's salience. No detector's values depend on another
            detector's strain.
        """
        values = self.limit(*self.filter(x.flatten(0, 1)[:, None]))
        result: Tensor = values.unflatten(0, x.shape[:2])
        return result

    def filter(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> tuple[
        Float[Tensor, "batch groups frames"], Float[Tensor, "batch learned frames"]
    ]:
        """Run the matched filters and the learned frontend on single detectors.

        Args:
            x: Whitened strain, [batch, 1, time], a whole number of frames.

        Returns:
            Log-likelihood ratios of the template groups, [batch, groups, frames]; and
            the learned frontend's output for the same merger times, [batch, width * 4,
            frames].
        """
        frames = self.frontend(x)[..., self.offset : self.stop]
        return self.matched(x)[..., self.start :], frames

    def limit(
        self,
        power: Float[Tensor, "batch groups frames"],
        frames: Float[Tensor, "batch learned frames"],
    ) -> Float[Tensor, "batch channels rest"]:
        """Apply the ceilings to one detector's groups, and add the other channels.

        Args:
            power: Log-likelihood ratios of the groups, from ``filter``.
            frames: The learned frontend's output, from ``filter``.

        Returns:
            Channels as from ``features``, [batch, groups + coarse + channels + 1,
            frames - FRAMES_BEFORE]. The first ``FRAMES_BEFORE`` frames have no value,
            since a ceiling needs that many frames before its own.
        """
        inputs = self.norm(torch.cat([power.clamp(max=self.CLAMP).sqrt(), frames], 1))
        hidden = self.hidden(inputs)
        power, inputs = (x[..., self.FRAMES_BEFORE :] for x in (power, inputs))
        ceiling = self.ceiling(hidden) / self.CEILING_SCALE
        ceiling = self.CEILING_SCALE * _softplus(ceiling)
        gap = (ceiling - power) / self.SOFTNESS
        limited = ceiling - self.SOFTNESS * _softplus(gap)
        coarse = power.clamp(max=self.COARSE_CLAMP).unflatten(
            1, (-1, self.COARSE_GROUPS)
        )
        best = limited.amax(1, keepdim=True)
        return torch.cat(
            [
                limited,
                coarse.amax(2),
                self.projection(torch.cat([inputs, hidden], 1)),
                self.salience(hidden) + best,
            ],
            1,
        )

    def evaluate(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> tuple[
        Float[Tensor, "batch strides"], Float[Tensor, "batch kernel_frames strides"]
    ]:
        """Score whitened strain; see ``Network.evaluate``."""
        return self.head.evaluate(self.features(x).sum(1))

    def forward(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch strides"]:
        """Score whitened strain; see ``Network.forward``."""
        score: Tensor = self.head(self.features(x))[0]
        return score

    def fused(self) -> Self:
        """Copy of the network for inference, BatchNorm folded into convolutions."""
        network = fused(self)
        if isinstance(network.norm, nn.BatchNorm1d):
            for conv in (network.hidden[0], network.projection):
                assert isinstance(conv, nn.Conv1d)
                _fold_into(conv, network.norm)
            network.norm = nn.Identity()
        return network


def _fold_into(conv: nn.Conv1d, norm: nn.BatchNorm1d) -> None:
    """Fold a BatchNorm without affine weights into the convolution that follows it.

    The convolution may have further input channels after the BatchNorm's; their
    weights stay as they are.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert conv.bias is not None
    weight = conv.weight.data[:, : norm.num_features]
    weight *= torch.rsqrt(norm.running_var + norm.eps)[:, None]
    conv.bias.data -= (weight[:, :, 0] * norm.running_mean).sum(1)
