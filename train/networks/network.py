"""The network ``split``: a frontend for each detector, and one narrow head.

Every convolution is valid (no padding), and BatchNorm folds into the convolutions, so
the network is shift-equivariant: one pass over a long whitened stretch gives each
kernel the same score as a pass over that kernel alone. Only the head combines
detectors, so each timeslide costs one more run of the head only.

The frontend's convolutions are two-dimensional with 1×k taps: ONNX Runtime has a
blocked layout for these, in which they run 1.5 times as fast as one-dimensional ones.
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
        taps: Length of the convolution, input samples.
        stride: Input samples per output sample.
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
    """Two valid convolutions with a skip connection, cropped to the same length.

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
    """Computes feature frames from one detector's whitened strain.

    All detectors share its weights. The stem's convolution spans a few cycles of a
    merger at the full sample rate. Each later stage halves the rate and doubles the
    channels. A last block at the frame rate widens the receptive field to half a
    second.

    Args:
        frame_size: Samples between two frames, 8 times a power of two.
        width: Channels of the stem.

    Attributes:
        channels: Channels of the output.
        receptive_field: Samples that one frame depends on. Frame ``i`` depends on
            samples ``i * frame_size`` to ``i * frame_size + receptive_field - 1``.

    Raises:
        GeometryError: ``frame_size`` is not 8 times a power of two.
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
            [batch, channels, frames], one frame every ``frame_size`` samples, for
            every receptive field that lies within the strain.
        """
        frames: Tensor = self.blocks(self.pool(torch.relu(self.stem(x.unsqueeze(2)))))
        return frames.squeeze(2)


class Head(nn.Module):
    """Sums the detectors' projected frames and scores every kernel.

    Args:
        channels: Channels of the projected frames, and of the head.
        kernel_frames: Frames of the head within one kernel.
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
        """Score every complete kernel.

        Args:
            features: Projected frames, [batch, ifos, channels, frames].

        Returns:
            The score (a logit), [batch, strides]; and the peak, the index within the
            kernel of the frame with the largest salience, float32, [batch, strides].
            The merger is estimated ``peak * frame_size + Network.peak_size`` samples
            after the kernel's start.
        """
        return self.forward_sum(features.sum(1))

    def forward_sum(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score every complete kernel, given the detectors' sum.

        Args:
            total: Sum of the detectors' projected frames, [batch, channels, frames].

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
        """Compute every complete kernel's score, and the salience of its frames.

        Args:
            total: Sum of the detectors' projected frames, [batch, channels, frames].

        Returns:
            The score, [batch, strides]; and the salience, [batch, kernel_frames,
            strides], a logit for each frame that the merger is at its time.
        """
        fused = torch.relu(self.norm(total))
        frames = torch.relu(self.conv(fused.unsqueeze(2)))
        score = self.mean_logit(self.mean(frames).squeeze(2))
        score = score + self.max_logit(self.max(frames).squeeze(2))
        salience = self.peak_logit(frames.squeeze(2))
        # Convolving with unit vectors turns each kernel's frames into channels.
        kernels = nn.functional.conv1d(
            salience, self.frames.to(salience.dtype), stride=self.stride_frames
        )
        return score.squeeze(1), kernels


class Network(nn.Module):
    """The network ``split``: ``head(projection(frontend(strain)))``.

    Args:
        geometry: Kernel, stride and frame sizes.
        width: Channels of the frontend's stem.
        channels: Channels of the projected frames and of the head.

    Raises:
        GeometryError: The kernel is shorter than the network's receptive field, or
            the frontend does not support the frame size.
    """

    PEAK_FRACTION = 0.78
    """Merger time that a frame stands for, as a fraction of its receptive field."""

    def __init__(self, geometry: Geometry, width: int = 16, channels: int = 32) -> None:
        super().__init__()
        self.geometry = geometry
        self.hyperparameters = {"width": width, "channels": channels}
        self.frontend = Frontend(geometry.frame_size, width)
        # No bias: the head's BatchNorm adds one to the sum.
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
        """Samples from the kernel's start to the merger that its first frame marks."""
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
        """Compute the scores of whitened strain, and the salience of its frames.

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
            Scores (logits), [batch, strides]. The first is that of the first
            ``kernel_size`` samples; each later kernel starts ``stride_size`` later.
        """
        score: Tensor = self.head(self.features(x))[0]
        return score

    def fused(self) -> Self:
        """Copy of the network for inference, BatchNorm folded into convolutions."""
        network = fused(self)
        head = network.head
        if isinstance(head.norm, nn.BatchNorm1d):
            fold_into_projections(network.projections, head.norm)
            head.norm = nn.Identity()
        return network


def fused(network: _Module) -> _Module:
    """Copy of a network in evaluation mode, with every ``ConvNorm`` fused."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fuse()
    return network


def fold_into_projections(projections: nn.ModuleList, norm: nn.BatchNorm1d) -> None:
    """Fold the BatchNorm of the detectors' sum into the detectors' projections.

    The first detector's projection gets the bias, so that the sum has it once.
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
