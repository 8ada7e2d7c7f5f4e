"""Networks that need no training; importing this takes PyTorch's seconds."""

import torch
from torch import Tensor, nn

from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.network import Network

OFFSET_SIZE = 64.0
"""Samples from a frame to the merger, as if calibrated, of the untrained network."""


def untrained_network(geometry: Geometry) -> Network:
    """A network with random weights whose norms have seen some noise."""
    torch.manual_seed(1)
    network = Network(geometry)
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(64, len(geometry.ifos), geometry.kernel_size))
        # Scores of noise that scatter as a trained network's do: a tolerance in logits
        # means nothing without.
        network.eval()
        scores = network(torch.randn(2000, len(geometry.ifos), geometry.kernel_size))
        for branch in (network.head.mean_logit, network.head.max_logit):
            branch.weight *= 1.3 / scores.std()
    return network


class EnergyHead(nn.Module):
    """The largest energy of a kernel's frames, and which frame has it."""

    def __init__(self, kernel_frames: int, stride_frames: int) -> None:
        super().__init__()
        self.kernel_frames = kernel_frames
        self.stride_frames = stride_frames
        self.register_buffer("frames", torch.eye(kernel_frames)[:, None])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_sum(features.sum(1))

    def forward_sum(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        kernels = nn.functional.conv1d(energy, self.frames, stride=self.stride_frames)
        return kernels.max(1).values, kernels.argmax(1).float()


class EnergyNetwork(nn.Module):
    """A network whose score and time are known in closed form.

    Its frames are the energy of ``frame_size`` whitened samples, so that an impulse
    scores by its energy, at its frame: what the path around the network does with times
    shows without the training of one.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.head = EnergyHead(
            geometry.kernel_size // geometry.frame_size,
            geometry.stride_size // geometry.frame_size,
        )
        self.mean = nn.AvgPool1d(geometry.frame_size)
        self.hyperparameters: dict[str, int] = {}

    def features(self, x: Tensor) -> Tensor:
        rows, ifos, time = x.shape
        energy = self.mean(x.reshape(rows * ifos, 1, time) ** 2)
        return energy.reshape(rows, ifos, 1, -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))[0]

    def fused(self) -> "EnergyNetwork":
        return self
