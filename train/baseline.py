"""The reference network: a two-channel ResNet that looks at one window at a time.

Layers [2, 3, 4, 2] of 64 to 512 channels with GroupNorm, about 4.7 million parameters
and 950 million operations a window. It is here to be compared with.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

GROUPS = 16
TAPS = 3
STEM_TAPS = 7


class Block(nn.Module):
    """Two convolutions of 3 taps with GroupNorm, beside a skip.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution and of the skip.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        padding = TAPS // 2
        self.main = nn.Sequential(
            nn.Conv1d(in_channels, out_channels, TAPS, stride, padding, bias=False),
            nn.GroupNorm(GROUPS, out_channels),
            nn.ReLU(),
            nn.Conv1d(out_channels, out_channels, TAPS, 1, padding, bias=False),
            nn.GroupNorm(GROUPS, out_channels),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv1d(in_channels, out_channels, 1, stride, bias=False),
                nn.GroupNorm(GROUPS, out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, time] to [batch, out_channels, time / stride]."""
        return torch.relu(self.main(x) + self.skip(x))


class SeedResNet(nn.Module):
    """A padded ResNet over both detectors at once, one score for a window.

    Args:
        ifos: Number of detectors.
        layers: Blocks of each stage; each stage but the first halves the rate and
            doubles the channels.
        width: Channels of the stem and of the first stage.
    """

    def __init__(
        self, ifos: int = 2, layers: Sequence[int] = (2, 3, 4, 2), width: int = 64
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = [
            nn.Conv1d(ifos, width, STEM_TAPS, 2, STEM_TAPS // 2, bias=False),
            nn.GroupNorm(GROUPS, width),
            nn.ReLU(),
            nn.MaxPool1d(TAPS, 2, TAPS // 2),
        ]
        channels = width
        for stage, blocks in enumerate(layers):
            out_channels = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(Block(channels, out_channels, stride))
                channels = out_channels
        self.trunk = nn.Sequential(*stages)
        self.logit = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score windows, [batch, ifos, 2048], with one logit each, [batch, 1]."""
        logit: Tensor = self.logit(self.trunk(x).mean(-1))
        return logit
