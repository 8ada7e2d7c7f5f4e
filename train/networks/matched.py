"""A network whose frontend holds matched filters beside learned ones.

Each detector's whitened strain is filtered by a bank of templates. Of every group of
templates of similar chirp mass, and of every 1/64 s, the largest |z|²/2 is kept: the
logarithm of the likelihood ratio of a signal in noise, less a constant. What this is
worth is limited by a ceiling that the network learns from these values and from a
learned frontend's frames: low where they look like a glitch. The head adds the
detectors' limited values, takes each group's largest over the kernel, and adds the
groups up as likelihoods (log-sum-exp), each weighted by a learned prior. What a small
network makes of learned channels, added likewise, is one more term.
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
"""Largest logarithm of a likelihood ratio that is told from larger ones, and the value
about which likelihoods are added."""


class MatchedHead(nn.Module):
    """Scores every kernel of the detectors' added values.

    All that the score needs of a kernel's frames is each channel's largest value.

    Args:
        groups: Groups of templates.
        coarse: Wider groups, whose values are not limited.
        channels: Learned channels.
        kernel_frames: Frames within one kernel.
        stride_frames: Frames between two scores.
    """

    HIDDEN = 24
    # About the mean and spread of the three terms in noise and signals.
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
        """Score every whole kernel; see ``network.Head.forward``."""
        return self.forward_sum(features.sum(1))

    def forward_sum(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score kernels of added frames; see ``network.Head.forward_sum``."""
        score, salience = self.evaluate(total)
        return score, salience.argmax(1).float()

    def evaluate(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[
        Float[Tensor, "batch strides"], Float[Tensor, "batch kernel_frames strides"]
    ]:
        """Score every whole kernel; see ``network.Head.evaluate``.

        Args:
            total: The detectors' values, added, [batch, groups + coarse + channels + 1,
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
        """The parts of the score, [batch, strides] each.

        Returns:
            Log-likelihood ratios of the limited and of the coarse groups, and the score
            of the learned channels.
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
        """Largest value of each kernel, [batch, channels, strides]."""
        # Of each stride first, since kernels overlap.
        step, count = self.stride_frames, self.kernel_frames // self.stride_frames
        if not torch.compiler.is_exporting():
            # The exported head is given whole strides alone.
            total = total[..., : total.shape[-1] // step * step]
        parts = total.unflatten(-1, (-1, step)).amax(-1)
        largest: Tensor = parts[..., count - 1 :]
        for i in range(1, count):
            largest = torch.maximum(largest, parts[..., count - 1 - i : -i])
        return largest


def _softplus(x: Tensor) -> Tensor:
    """Logarithm of 1 + exp(x), of operators that ONNX Runtime has in vectors.

    Its own one takes three times as long.
    """
    return torch.relu(x) + (1 + (-x.abs()).exp()).log()


def _add_likelihoods(
    logarithms: Float[Tensor, "batch channels strides"],
) -> Float[Tensor, "batch strides"]:
    """Logarithm of the sum of exponentials over channels, [batch, strides].

    About a fixed value in place of the largest, which would have to be found first:
    exponentials of -80 to 80 are within single precision.
    """
    x = logarithms.float().clamp(-MIDDLE, LARGEST) - MIDDLE
    return x.exp().sum(1).log() + MIDDLE


class MatchedNetwork(nn.Module):
    """The whole detector network: matched filters and a learned frontend, one head.

    Args:
        geometry: Kernel, stride and frame sizes.
        sub_banks: Parts of the bank, each as ``SubBank`` or its values by name.
        groups: Groups of templates.
        width: Channels of the learned frontend's stem.
        channels: Learned channels that are added up.
        hidden: Channels from which the ceilings are made.

    Raises:
        GeometryError: The filters do not fit in a kernel, or frame size or rate are
            none that they can have.
    """

    # Above this, a larger value of a template says nothing more about what it is.
    CLAMP, COARSE_CLAMP = 100.0, 60.0
    COARSE_GROUPS = 8
    CEILING_SCALE, SOFTNESS = 4.0, 1.5
    FIRST_CEILING = 28.0
    # A ceiling depends on the frames before its own as well: what a glitch does there.
    # None after it, or a merger near the kernel's end would be missed.
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
                    "templates": one.templates,
                    "ranks": list(one.ranks),
                    "lengths": list(one.lengths),
                }
                for one in parts
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
        # Whole strides of frames.
        kernel_frames = spare_size // geometry.frame_size + 1 - self.FRAMES_BEFORE
        # The first ones are left out: of mergers the farthest from the kernel's end.
        self.start = kernel_frames % stride_frames
        kernel_frames -= self.start
        if kernel_frames < stride_frames:
            raise GeometryError(
                "kernel_length: expected room for "
                f"{self.FRAMES_BEFORE + stride_frames} frames of matched filters, "
                f"found {geometry.kernel_length:g} s"
            )
        # The learned frames of the same merger times.
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
        """Begin with a bank's templates; see ``MatchedFilters.set_bank``."""
        lost = self.matched.set_bank(bank, self.geometry)
        share = torch.tensor(bank.share, dtype=torch.float32)
        prior = share.reshape(self.groups, -1).sum(1, keepdim=True)
        prior = prior.clamp(min=1e-4)
        self.head.prior.data[:] = prior.log()
        coarse = prior.reshape(-1, self.COARSE_GROUPS, 1).sum(1)
        self.head.coarse_prior.data[:] = coarse.log()
        return lost

    def set_learned(self, network: Network) -> None:
        """Begin with the frontend of a trained network without matched filters."""
        self.frontend.load_state_dict(network.frontend.state_dict())

    def offsets(self) -> list[nn.Parameter]:
        """Biases in units of the score, which are trained at a higher rate."""
        head, bias = self.head, self.ceiling.bias
        assert isinstance(bias, nn.Parameter)
        return [head.prior, head.coarse_prior, head.offset, bias]

    def features(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch ifos channels frames"]:
        """Compute what of each detector is added up.

        Args:
            x: Whitened strain, [batch, ifos, time], whole frames.

        Returns:
            [batch, ifos, groups + coarse + channels + 1, frames]: limited values of
            the groups, those of wider groups as they are, the learned channels, and how
            much the frame looks like a merger's. No detector's frames depend on
            another's strain.
        """
        values = self.limit(*self.filter(x.flatten(0, 1)[:, None]))
        result: Tensor = values.unflatten(0, x.shape[:2])
        return result

    def filter(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> tuple[
        Float[Tensor, "batch groups frames"], Float[Tensor, "batch learned frames"]
    ]:
        """Filter whitened strain of single detectors.

        Args:
            x: [batch, 1, time], whole frames.

        Returns:
            Log-likelihood ratios of groups of templates, [batch, groups, frames], and
            the learned frontend's output for the same mergers, [batch, width * 4,
            frames].
        """
        frames = self.frontend(x)[..., self.offset : self.stop]
        return self.matched(x)[..., self.start :], frames

    def limit(
        self,
        power: Float[Tensor, "batch groups frames"],
        frames: Float[Tensor, "batch learned frames"],
    ) -> Float[Tensor, "batch channels rest"]:
        """Limit the values of a detector's groups, and join the learned channels.

        Args:
            power: Of the groups, as from ``filter``.
            frames: The learned frontend's, likewise.

        Returns:
            [batch, groups + coarse + channels + 1, frames - FRAMES_BEFORE]: none for
            the first frames, which have too few before them.
        """
        seen = self.norm(torch.cat([power.clamp(max=self.CLAMP).sqrt(), frames], 1))
        hidden = self.hidden(seen)
        power, seen = (x[..., self.FRAMES_BEFORE :] for x in (power, seen))
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
                self.projection(torch.cat([seen, hidden], 1)),
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
        """Copy the network in evaluation mode, norms folded into convolutions."""
        network = fused(self)
        if isinstance(network.norm, nn.BatchNorm1d):
            for conv in (network.hidden[0], network.projection):
                assert isinstance(conv, nn.Conv1d)
                _fold_into(conv, network.norm)
            network.norm = nn.Identity()
        return network


def _fold_into(conv: nn.Conv1d, norm: nn.BatchNorm1d) -> None:
    """Fold a norm without weights of its own into the convolution that follows it.

    What the convolution has beside the norm's channels comes after these, and stays.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert conv.bias is not None
    weight = conv.weight.data[:, : norm.num_features]
    weight *= torch.rsqrt(norm.running_var + norm.eps)[:, None]
    conv.bias.data -= (weight[:, :, 0] * norm.running_mean).sum(1)
