"""Networks that need no training, and settings of trainings that take seconds.

Importing this module imports PyTorch, which takes seconds.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from chirpwatch.geometry import Geometry
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.networks.bank import BankSettings
from chirpwatch.train.networks.checkpoint import find_checkpoint
from chirpwatch.train.networks.filters import SubBank
from chirpwatch.train.networks.network import Network
from chirpwatch.train.networks.placement import place

OFFSET_SIZE = 64.0
"""``peak_offset_size`` of the untrained network, as if calibrated, samples."""

SPLIT = find_checkpoint("split")
TINY_WINDOWS = WindowSettings(
    batch_size=32,
    bank_size=32,
    glitch_bank_size=32,
    stretches=1,
    first_snr=40.0,
    last_snr=30.0,
)
TINY = (
    "--data.windows.batch_size=32",
    "--data.windows.bank_size=32",
    "--data.windows.glitch_bank_size=32",
    "--data.windows.stretches=1",
    "--data.windows.first_snr=40",
    "--data.windows.last_snr=30",
    "--data.workers=0",
    "--data.validation_length=128",
    "--data.validation_slides=1",
    "--data.validation_injections=4",
    "--data.validation_windows=64",
    "--model.hyperparameters={width: 8}",
    "--trainer.accelerator=cpu",
    "--figures=none",
)
"""Options of a training that takes seconds; the number of steps is not included."""

TINY_EFFORT = {
    "noise_length": 240,
    "stretches": 2,
    "bank_size": 8,
    "glitch_bank_size": 16,
    "signals": 20,
    "glitch_windows": 400,
    "scatter": 60,
    "batches": 1,
    "optimum_windows": 500,
    "optimum_signals": 20,
    "bank_windows": 0,
    "snrs": (8.0, 12.0),
}
"""Effort of a validation that takes seconds."""

SUB_BANKS = [SubBank(16, (8, 8, 8), (1.0, 0.7, 0.28))]


def untrained_network(geometry: Geometry) -> Network:
    """A network with random weights, whose BatchNorms have statistics of noise."""
    torch.manual_seed(1)
    network = Network(geometry)
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(64, len(geometry.ifos), geometry.kernel_size))
        # Scale the scores of noise to a trained network's scatter; tolerances in logits
        # would mean nothing otherwise.
        network.eval()
        scores = network(torch.randn(2000, len(geometry.ifos), geometry.kernel_size))
        for branch in (network.head.mean_logit, network.head.max_logit):
            branch.weight *= 1.3 / scores.std()
    return network


class EnergyHead(nn.Module):
    """Head that returns the largest energy of a kernel's frames, and its frame."""

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

    Each frame is the mean energy of ``frame_size`` whitened samples. An impulse's score
    is its energy, at the impulse's frame. So a test can check the time of an event
    without a trained network.
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


def small_matched(folder: Path) -> tuple[str, ...]:
    """Write a small bank; return ``TINY`` options for the network ``matched``."""
    bank = folder / "bank.json"
    settings = BankSettings(
        templates=16, candidates=60, min_mass=10, max_mass=100, max_spin=0.5
    )
    bank.write_text(place(settings, Geometry(kernel_length=2.0)).to_json())
    sizes = json.dumps({"sub_banks": [asdict(SUB_BANKS[0])], "groups": 8})
    return (
        *(key for key in TINY if "hyperparameters" not in key),
        f"--model.hyperparameters={sizes}",
        f"--model.bank={bank}",
        "--data.windows.first_snr=30",
    )
