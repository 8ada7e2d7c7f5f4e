"""The network ``split``: a frontend for each detector, and one narrow head.

Every convolution is valid (no padding), and BatchNorm folds into the convolutions, so
the network is shift-equivariant: run once over a long whitened stretch, it gives each
kernel the score that the kernel gets alone. Only the head sees two detectors at once,
so a timeslide costs the head and nothing else.

Convolutions are written as 1×k two-dimensional ones: ONNX Runtime runs these in its
blocked layout, half as fast again as one-dimensional ones.
"""

import copy
from typing import Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry

_Module = TypeVar("_Module", bound=nn.Module)


class ConvNorm(nn.Module):
    """A valid convolution along time, followed by BatchNorm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        taps: Length of the convolution, in samples of its input.
        stride: Samples of the input for each sample of the output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, taps: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, (1, taps), stride=(1, stride), bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(
        self, x: Float[Tensor, "batch in_channels 1 time"]
    ) -> Float[Tensor, "batch out_channels 1 frames"]:
        """Map [batch, in_channels, 1, time] to [batch, out_channels, 1, frames]."""
        output: Tensor = self.norm(self.conv(x))
        return output

    def fuse(self) -> None:
        """Fold the BatchNorm's running statistics into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class ResidualBlock(nn.Module):
    """Two valid convolutions beside a skip that is cropped to what they cover.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        taps: Length of both convolutions, odd.
        stride: Stride of the first convolution and of the skip.
    """

    def __init__(
        self, in_channels: int, out_channels: int, taps: int, stride: int
    ) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, taps, stride)
        self.second = ConvNorm(out_channels, out_channels, taps)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.skip = ConvNorm(in_channels, out_channels, 1, stride)
        self.reach = (taps - 1) * (1 + stride)
        self.crop = self.reach // 2

    def forward(
        self, x: Float[Tensor, "batch in_channels 1 time"]
    ) -> Float[Tensor, "batch out_channels 1 frames"]:
        """Map [batch, in_channels, 1, time] to [batch, out_channels, 1, frames]."""
        main = self.second(torch.relu(self.first(x)))
        skip = self.skip(x[..., self.crop : -self.crop])
        return torch.relu(main + skip)


class Frontend(nn.Module):
    """One detector's whitened strain to feature frames, equal for every detector.

    The stem is long enough to hold a few cycles of a merger at full rate; each later
    stage halves the rate and doubles the channels; a last block at the rate of the
    frames widens the view to half a second.

    Args:
        frame_size: Samples between two frames: 8 times a power of two.
        width: Channels of the stem.

    Attributes:
        channels: Channels of the output.
        receptive_field: Samples that one frame depends on. Frame ``i`` depends on
            samples ``i * frame_size`` to ``i * frame_size + receptive_field - 1``.
    """

    STEM_TAPS = 31
    STEM_STRIDE = 4
    STEM_POOL = 2
    BLOCK_TAPS = 9
    CONTEXT_TAPS = 5

    def __init__(self, frame_size: int, width: int) -> None:
        super().__init__()
        stem_size = self.STEM_STRIDE * self.STEM_POOL
        stages = (frame_size // stem_size).bit_length() - 1
        if stages < 0 or frame_size != stem_size * 2**stages:
            raise GeometryError(
                f"frame_size: expected {stem_size} times a power of two for this "
                f"frontend, found {frame_size}"
            )
        self.stem = ConvNorm(1, width, self.STEM_TAPS, self.STEM_STRIDE)
        self.pool = nn.MaxPool2d((1, self.STEM_POOL))
        blocks = [ResidualBlock(width, width, self.BLOCK_TAPS, 1)]
        for stage in range(stages):
            channels = width * 2**stage
            blocks.append(ResidualBlock(channels, 2 * channels, self.BLOCK_TAPS, 2))
        self.channels = width * 2**stages
        blocks.append(ResidualBlock(self.channels, self.channels, self.CONTEXT_TAPS, 1))
        self.blocks = nn.Sequential(*blocks)
        rate = self.STEM_STRIDE
        receptive_field = self.STEM_TAPS + (self.STEM_POOL - 1) * rate
        rate *= self.STEM_POOL
        for block in blocks:
            receptive_field += block.reach * rate
            rate *= block.first.conv.stride[1]
        self.receptive_field = receptive_field

    def forward(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> Float[Tensor, "batch channels frames"]:
        """Compute the frames of whitened strain.

        Args:
            x: Whitened strain of one detector, [batch, 1, time].

        Returns:
            [batch, channels, frames], one frame for each ``frame_size`` samples as far
            as whole receptive fields fit in.
        """
        frames: Tensor = self.blocks(self.pool(torch.relu(self.stem(x.unsqueeze(2)))))
        return frames.squeeze(2)


class Head(nn.Module):
    """Adds the detectors' projected frames, and scores every kernel.

    Args:
        channels: Channels of the projected frames, and of the head.
        kernel_frames: Frames of the head that lie within one kernel.
        stride_frames: Frames between two scores.
    """

    TAPS = 3

    def __init__(self, channels: int, kernel_frames: int, stride_frames: int) -> None:
        super().__init__()
        self.kernel_frames = kernel_frames
        self.norm: nn.Module = nn.BatchNorm1d(channels)
        self.conv = ConvNorm(channels, channels, self.TAPS)
        window = (1, kernel_frames)
        self.mean = nn.AvgPool2d(window, stride=(1, stride_frames))
        self.max = nn.MaxPool2d(window, stride=(1, stride_frames))
        self.mean_logit = nn.Conv1d(channels, 1, 1)
        self.max_logit = nn.Conv1d(channels, 1, 1, bias=False)
        self.peak_logit = nn.Conv1d(channels, 1, 1, bias=False)
        self.stride_frames = stride_frames
        self.register_buffer("frames", torch.eye(kernel_frames)[:, None])
        self.frames: Tensor

    def forward(
        self, features: Float[Tensor, "batch ifos channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score every whole kernel.

        Args:
            features: Projected frames, [batch, ifos, channels, frames].

        Returns:
            Two tensors [batch, strides]: the score, a logit; and the peak, the index
            (as float32) of the frame within the kernel that tells when the merger was.
        """
        return self.forward_sum(features.sum(1))

    def forward_sum(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score every whole kernel of frames that were added up.

        Args:
            total: The detectors' projected frames, added, [batch, channels, frames].

        Returns:
            As ``forward``.
        """
        score, salience = self.evaluate(total)
        return score, salience.argmax(1).float()

    def evaluate(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[
        Float[Tensor, "batch strides"], Float[Tensor, "batch kernel_frames strides"]
    ]:
        """Score every whole kernel, and each frame in it as the merger's.

        Args:
            total: The detectors' projected frames, added, [batch, channels, frames].

        Returns:
            The score, [batch, strides], and the salience, [batch, kernel_frames,
            strides]: logits of which frame tells the merger's time.
        """
        fused = torch.relu(self.norm(total))
        frames = torch.relu(self.conv(fused.unsqueeze(2)))
        score = self.mean_logit(self.mean(frames).squeeze(2))
        score = score + self.max_logit(self.max(frames).squeeze(2))
        salience = self.peak_logit(frames.squeeze(2))
        # A convolution with unit vectors lays each kernel's frames out as channels.
        kernels = nn.functional.conv1d(
            salience, self.frames.to(salience.dtype), stride=self.stride_frames
        )
        return score.squeeze(1), kernels


class Network(nn.Module):
    """The whole detector network: ``head(projection(frontend(strain)))``.

    Args:
        geometry: Kernel, stride and frame sizes.
        width: Channels of the frontend's stem.
        channels: Channels of the projected frames and of the head.

    Raises:
        GeometryError: No frame of the head fits in a kernel, or the frame size is
            none that the frontend can make.
    """

    PEAK_FRACTION = 0.78
    """Where in its receptive field a frame has the merger whose time it tells."""

    def __init__(self, geometry: Geometry, width: int = 16, channels: int = 32) -> None:
        super().__init__()
        self.geometry = geometry
        self.hyperparameters = {"width": width, "channels": channels}
        self.frontend = Frontend(geometry.frame_size, width)
        # The bias is left to the head's BatchNorm.
        self.projections = nn.ModuleList(
            nn.Conv1d(self.frontend.channels, channels, 1, bias=False)
            for _ in geometry.ifos
        )
        spare_size = geometry.kernel_size - self.receptive_field
        if spare_size < 0:
            raise GeometryError(
                f"kernel_length: expected at least the network's receptive field of "
                f"{self.receptive_field} samples, found {geometry.kernel_size}"
            )
        self.head = Head(
            channels,
            kernel_frames=spare_size // geometry.frame_size + 1,
            stride_frames=geometry.stride_size // geometry.frame_size,
        )

    @property
    def receptive_field(self) -> int:
        """Samples of whitened strain that one frame of the head depends on."""
        head_size = (Head.TAPS - 1) * self.geometry.frame_size
        return self.frontend.receptive_field + head_size

    @property
    def peak_size(self) -> float:
        """Samples from a kernel's first to the merger that its first frame tells."""
        return self.PEAK_FRACTION * self.receptive_field

    def features(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch ifos channels frames"]:
        """Compute the projected frames of each detector.

        Args:
            x: Whitened strain, [batch, ifos, time].

        Returns:
            [batch, ifos, channels, frames]. No detector's frames depend on another's
            strain.
        """
        batch, ifos, time = x.shape
        frames = self.frontend(x.reshape(batch * ifos, 1, time))
        frames = frames.reshape(batch, ifos, *frames.shape[1:])
        return torch.stack(
            [project(frames[:, i]) for i, project in enumerate(self.projections)], 1
        )

    def evaluate(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> tuple[
        Float[Tensor, "batch strides"], Float[Tensor, "batch kernel_frames strides"]
    ]:
        """Score whitened strain, and each frame of a kernel as the merger's.

        Args:
            x: Whitened strain, [batch, ifos, time].

        Returns:
            As ``Head.evaluate``.
        """
        return self.head.evaluate(self.features(x).sum(1))

    def forward(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch strides"]:
        """Score whitened strain.

        Args:
            x: Whitened strain, [batch, ifos, time].

        Returns:
            Scores (logits), [batch, strides]: one for the first ``kernel_size``
            samples, and one for each further ``stride_size``.
        """
        score: Tensor = self.head(self.features(x))[0]
        return score

    def fused(self) -> Self:
        """Copy the network in evaluation mode, BatchNorm folded into convolutions."""
        network = fused(self)
        head = network.head
        if isinstance(head.norm, nn.BatchNorm1d):
            fold_into_projections(network.projections, head.norm)
            head.norm = nn.Identity()
        return network


def fused(network: _Module) -> _Module:
    """Copy a network in evaluation mode, each BatchNorm folded into its convolution."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fuse()
    return network


def fold_into_projections(projections: nn.ModuleList, norm: nn.BatchNorm1d) -> None:
    """Fold the norm of the detectors' sum into the projections that are summed.

    The sum's offset goes to the first detector alone.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    offset = norm.bias - norm.running_mean * scale
    for i, projection in enumerate(projections):
        assert isinstance(projection, nn.Conv1d)
        fused = nn.Conv1d(projection.in_channels, projection.out_channels, 1)
        fused.weight = nn.Parameter(projection.weight * scale[:, None, None])
        fused.bias = nn.Parameter(offset if i == 0 else torch.zeros_like(offset))
        projections[i] = fused.eval()
