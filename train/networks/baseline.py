"""The reference networks ``seed`` and ``dense``: ResNets with a channel per detector.

They are the baseline in comparisons. Stages of [2, 3, 4, 2] blocks have 64 to 512
channels: about 4.7 million parameters, and 950 million operations per window.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry

GROUPS = 16
TAPS = 3
STEM_TAPS = 7
Norm = Callable[[int], nn.Module]


def group_norm(channels: int) -> nn.Module:
    """GroupNorm; its statistics are those of each window, over all of its samples."""
    return nn.GroupNorm(GROUPS, channels)


class Block(nn.Module):
    """Residual block: two padded convolutions of 3 taps, and a skip connection.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution and of the skip.
        norm: Makes a normalisation layer, given the number of channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, norm: Norm
    ) -> None:
        super().__init__()
        padding = TAPS // 2
        self.main = nn.Sequential(
            nn.Conv1d(in_channels, out_channels, TAPS, stride, padding, bias=False),
            norm(out_channels),
            nn.ReLU(),
            nn.Conv1d(out_channels, out_channels, TAPS, 1, padding, bias=False),
            norm(out_channels),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv1d(in_channels, out_channels, 1, stride, bias=False),
                norm(out_channels),
            )

    def forward(
        self, x: Float[Tensor, "batch in_channels time"]
    ) -> Float[Tensor, "batch out_channels frames"]:
        """Map [batch, in_channels, time] to [batch, out_channels, time / stride]."""
        return torch.relu(self.main(x) + self.skip(x))


class ResNet(nn.Module):
    """Base of the two reference networks: a padded trunk over all detectors.

    Args:
        geometry: Kernel and stride.
        norm: Makes a normalisation layer, given the number of channels.
        layers: Blocks in each stage; each stage but the first halves the rate and
            doubles the channels.
        width: Channels of the stem and of the first stage.

    Attributes:
        frame_size: Samples between two frames of the trunk.
        receptive_field: Samples that one frame depends on.
    """

    def __init__(
        self,
        geometry: Geometry,
        norm: Norm,
        layers: Sequence[int] = (2, 3, 4, 2),
        width: int = 64,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.hyperparameters: dict[str, Any] = {"layers": list(layers), "width": width}
        stages: list[nn.Module] = [
            nn.Conv1d(
                len(geometry.ifos), width, STEM_TAPS, 2, STEM_TAPS // 2, bias=False
            ),
            norm(width),
            nn.ReLU(),
            nn.MaxPool1d(TAPS, 2, TAPS // 2),
        ]
        self.frame_size = 4
        self.receptive_field = STEM_TAPS + 2 * (TAPS - 1)
        channels = width
        for stage, blocks in enumerate(layers):
            out_channels = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(Block(channels, out_channels, stride, norm))
                channels = out_channels
                self.receptive_field += (TAPS - 1) * self.frame_size * (1 + stride)
                self.frame_size *= stride
        self.trunk = nn.Sequential(*stages)
        self.logit = nn.Linear(channels, 1)

    def evaluate(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> tuple[Float[Tensor, "batch strides"], None]:
        """Score whitened strain. These networks have no salience (``network.Head``).

        Args:
            x: Whitened strain, [batch, ifos, time].

        Returns:
            Scores, [batch, strides], and None.
        """
        scores: Tensor = self(x)
        return scores, None

    def fused(self) -> Self:
        """Copy the network in evaluation mode."""
        return copy.deepcopy(self).eval()


class SeedResNet(ResNet):
    """The network ``seed``: scores single windows, with GroupNorm and a mean over time.

    Args:
        geometry: Kernel and stride.
        layers, width: See ``ResNet``.
    """

    def __init__(
        self, geometry: Geometry, layers: Sequence[int] = (2, 3, 4, 2), width: int = 64
    ) -> None:
        super().__init__(geometry, group_norm, layers, width)

    def forward(self, x: Float[Tensor, "batch ifos time"]) -> Float[Tensor, "batch 1"]:
        """Compute one score (a logit) per window.

        Args:
            x: Whitened strain, [batch, ifos, kernel_size].

        Returns:
            [batch, 1].

        Raises:
            GeometryError: The strain is not one kernel long.
        """
        if x.shape[-1] != self.geometry.kernel_size:
            raise GeometryError(
                f"expected windows of {self.geometry.kernel_size} samples, found "
                f"{x.shape[-1]}"
            )
        logit: Tensor = self.logit(self.trunk(x).mean(-1))
        return logit


class DenseResNet(ResNet):
    """The network ``dense``: scores strain of any length, with BatchNorm.

    The mean over a kernel leaves out the frames whose receptive field reaches beyond
    it. So a kernel within a longer stretch gets the same score as on its own.

    Args:
        geometry: Kernel and stride.
        layers, width: See ``ResNet``.

    Raises:
        GeometryError: The stride is not a whole number of frames, or every frame's
            receptive field reaches beyond the kernel.
    """

    def __init__(
        self, geometry: Geometry, layers: Sequence[int] = (2, 3, 4, 2), width: int = 64
    ) -> None:
        super().__init__(geometry, nn.BatchNorm1d, layers, width)
        self.edge_frames = -(-self.receptive_field // 2 // self.frame_size)
        kernel_frames = geometry.kernel_size // self.frame_size - 2 * self.edge_frames
        if geometry.stride_size % self.frame_size or kernel_frames < 1:
            raise GeometryError(
                f"expected a stride of whole frames of {self.frame_size} samples and a "
                f"kernel of more than {2 * self.edge_frames} frames, found "
                f"{geometry.stride_size} and {geometry.kernel_size} samples"
            )
        self.pool = nn.AvgPool1d(
            kernel_frames, stride=geometry.stride_size // self.frame_size
        )

    def forward(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch strides"]:
        """Score every complete kernel: [batch, ifos, time] to [batch, strides]."""
        frames = self.trunk(x)[..., self.edge_frames : -self.edge_frames]
        logits: Tensor = self.logit(self.pool(frames).mT).squeeze(-1)
        return logits
