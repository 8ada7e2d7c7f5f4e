"""The frontend's speed and accuracy on a GPU: ``python -m benchmarks.gpu``.

The frontend's ONNX file runs in ONNX Runtime with CUDA, and with TensorRT as in its
``gpu`` configuration; the same network runs in PyTorch. Engines that the machine lacks
are skipped. Each is compared with the CPU's result on the same data. Prints, as JSON,
the time and the largest difference for each request of the warm-up.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from chirpwatch.export.repository import (
    BY_TENSORRT,
    LONGEST,
    UNTILED,
    USUAL,
    shortest,
    warm_ups,
)
from chirpwatch.export.repository import profile as shape_of
from chirpwatch.train.networks.checkpoint import load_checkpoint
from chirpwatch.train.networks.matched import MatchedNetwork

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "model_repo" / BY_TENSORRT / "1" / UNTILED
CHECKPOINT = ROOT / "train" / "checkpoints" / "matched" / "network.ckpt"
ROUNDS = 20

Run = Callable[[np.ndarray], np.ndarray]


def in_onnxruntime(provider: str, options: dict[str, str]) -> Run:
    """Load the frontend in ONNX Runtime; a call includes copies to and from the device.

    Args:
        provider: Execution provider.
        options: Its options.
    """
    # Operators that the provider lacks run on the CPU.
    providers: dict[str, dict[str, str]] = {provider: options}
    providers.setdefault("CPUExecutionProvider", {})
    session = onnxruntime.InferenceSession(str(MODEL), providers=[*providers.items()])
    return lambda whitened: session.run(None, {"whitened": whitened})[0]


def in_pytorch() -> Run:
    """Load the frontend in PyTorch on the GPU (float32, no TF32), copies included."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = load_checkpoint(CHECKPOINT)[0].fused().eval().cuda()
    assert isinstance(network, MatchedNetwork)

    def run(whitened: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network.features(torch.from_numpy(whitened).cuda()).cpu().numpy()

    return run


def engines() -> dict[str, Run]:
    """Load the frontend in each engine that this machine has."""
    geometry = load_checkpoint(CHECKPOINT)[0].geometry
    loaded: dict[str, Run] = {}
    available = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" in available:
        cuda = {"use_tf32": "0"}
        loaded["ONNX Runtime, CUDA"] = in_onnxruntime("CUDAExecutionProvider", cuda)
    if "TensorrtExecutionProvider" in available:
        profile = {
            f"trt_profile_{kind}_shapes": shape_of(geometry, request)
            for kind, request in (
                ("min", shortest(geometry)),
                ("opt", USUAL),
                ("max", LONGEST),
            )
        }
        loaded["ONNX Runtime, TensorRT"] = in_onnxruntime(
            "TensorrtExecutionProvider", profile
        )
    if torch.cuda.is_available():
        loaded["PyTorch, CUDA"] = in_pytorch()
    return loaded


def main() -> None:
    """Time all engines, and print the figures."""
    geometry = load_checkpoint(CHECKPOINT)[0].geometry
    processor = in_onnxruntime("CPUExecutionProvider", {})
    rng = np.random.default_rng(0)
    figures = []
    loaded = engines()
    for length, rows in warm_ups(geometry):
        size = geometry.kernel_size - geometry.stride_size
        size += round(length * geometry.sample_rate)
        shape = (rows, len(geometry.ifos), size)
        whitened = rng.standard_normal(shape).astype(np.float32)
        expected = processor(whitened)
        for name, run in loaded.items():
            begin = time.perf_counter()
            features = run(whitened)
            first = time.perf_counter() - begin
            times = []
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                run(whitened)
                times.append(1e3 * (time.perf_counter() - begin))
            figures.append(
                {
                    "engine": name,
                    "strain_length": length,
                    "rows": rows,
                    "first_ms": 1e3 * first,
                    "median_ms": statistics.median(times),
                    "largest_difference": float(np.abs(features - expected).max()),
                    "largest_feature": float(np.abs(expected).max()),
                }
            )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(json.dumps({"gpu": device, "frontend": figures}, indent=2))


if __name__ == "__main__":
    main()
