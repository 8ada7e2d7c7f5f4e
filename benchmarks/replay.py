"""Replay against the seed's method: ``make bench``.

Both score the same simulated strain, background and injected stream, on the same two
cores, in turns. The seed's method is its loop in PyTorch: for each batch of 128
windows a PSD of the 64 s before, whitening, unfolding into windows of 1 s every 1/8 s,
and the 2-channel ResNet on each window; two processes of one thread, which is how it is
fastest. Ours is everything that a replay does to get its scores: requests over gRPC,
the embedded Triton, whitening, network; two sequences at once. Writes ``results.json``.
"""

import json
import multiprocessing
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from ml4gw.transforms import SpectralDensity, Whiten

from serve.embedded import TritonServer
from streamer.cli import REPOSITORY
from streamer.client import Detector
from train.baseline import SeedResNet
from train.data.background import simulate_background

RESULTS = Path(__file__).parent / "results.json"
CORES = 2
ROUNDS = 5
BATCH = 128
SEED_BATCHES = 4
LENGTH = 1024
REQUEST_STRIDES = 512
UPDATES = 2000
RATE, STRIDE, PSD_LENGTH, IFOS = 2048, 256, 64, 2


def seed_worker(barrier: Any, result: Any) -> None:
    """Score batches in the seed's way; report strain scored per second."""
    torch.set_num_threads(1)
    network = SeedResNet().eval()
    psd = SpectralDensity(RATE, 2.0, average="median").double()
    whiten = Whiten(1.0, RATE, 32.0)
    new_size = BATCH * STRIDE
    size = PSD_LENGTH * RATE + 2 * RATE - STRIDE + new_size
    strain = 1e-21 * torch.randn(2, IFOS, size, dtype=torch.float64)

    def batch() -> None:
        spectrum = psd(strain[0, :, : PSD_LENGTH * RATE])
        whitened = whiten(strain[..., PSD_LENGTH * RATE :], spectrum[None]).float()
        windows = whitened.unfold(-1, RATE, STRIDE).transpose(1, 2)
        with torch.no_grad():
            for row in windows:
                network(row)

    batch()
    barrier.wait()
    begin = time.perf_counter()
    for _ in range(SEED_BATCHES):
        batch()
    wall = time.perf_counter() - begin
    result.put(SEED_BATCHES * 2 * BATCH * STRIDE / RATE / wall)


def time_seed() -> float:
    """Strain scored per second by the seed's method on all cores."""
    context = multiprocessing.get_context("spawn")
    barrier, result = context.Barrier(CORES), context.Queue()
    workers = [
        context.Process(target=seed_worker, args=(barrier, result))
        for _ in range(CORES)
    ]
    for worker in workers:
        worker.start()
    total = sum(result.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def time_replay(address: str, strain: np.ndarray) -> float:
    """Strain scored per second through Triton, two sequences at once."""
    strides = strain.shape[-1] // STRIDE

    def sequence(_: int) -> int:
        detector = Detector(address)
        pieces = detector.stream(
            lambda a, b: strain[..., a:b], strides, REQUEST_STRIDES
        )
        return sum(piece.score.size for piece in pieces)

    begin = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        scored = sum(pool.map(sequence, range(2 * CORES)))
    return scored * STRIDE / RATE / (time.perf_counter() - begin)


def time_updates(address: str, strain: np.ndarray) -> dict[str, float]:
    """Latency of updates of 1/8 s, one at a time, ms."""
    detector = Detector(address, window=1)
    latencies = [
        1e3 * piece.latency
        for piece in detector.stream(lambda a, b: strain[..., a:b], UPDATES, 1)
    ]
    p50, p99 = np.percentile(latencies[8:], (50, 99))
    return {"median": p50, "p99": p99}


def time_stages(strain: np.ndarray) -> dict[str, float]:
    """Time of each model alone, ms for a second of both rows, on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(
            str(REPOSITORY / name / "1" / "model.onnx"), options
        )
        for name in ("snapshotter", "preprocessor", "frontend", "head")
    }
    times: dict[str, list[float]] = {name: [] for name in sessions}

    def run(name: str, outputs: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        begin = time.process_time()
        values = sessions[name].run(outputs, feed)
        times[name].append(time.process_time() - begin)
        return values

    size = REQUEST_STRIDES * STRIDE
    state = np.zeros((IFOS, 1), np.float32)
    for begin in range(0, strain.shape[-1], size):
        step = np.array([begin // STRIDE])
        feed = {"strain": strain[..., begin : begin + size], "step": step}
        names = ["snapshot", "psd", "new_state"]
        snapshot, psd, state = run("snapshotter", names, feed | {"state": state})
        feed = {"snapshot": snapshot, "psd": psd, "step": step}
        (whitened,) = run("preprocessor", ["whitened"], feed)
        (features,) = run("frontend", ["features"], {"whitened": whitened})
        run("head", ["score", "delay"], {"features": features})
    length = size / RATE
    return {name: 1e3 * statistics.median(t) / length for name, t in times.items()}


def matrix_product_rate() -> float:
    """What a large matrix product reaches on one core, GFLOP/s in fp32."""
    torch.set_num_threads(1)
    one, n = torch.randn(2048, 2048), 5
    one @ one
    begin = time.process_time()
    for _ in range(n):
        one @ one
    return n * 2 * 2048**3 / (time.process_time() - begin) / 1e9


def main() -> None:
    """Run both in turns, print and write the figures."""
    data, _ = simulate_background(LENGTH, "O3", ("H1", "L1"), RATE, seed=0)
    background = np.stack([data["H1"], data["L1"]]).astype(np.float32)
    strain = np.stack([background, background])
    seed, replay = [], []
    with TritonServer(REPOSITORY) as server:
        # Memory is fetched from the system in the first requests.
        time_replay(server.address, strain)
        for _ in range(ROUNDS):
            seed.append(time_seed())
            replay.append(time_replay(server.address, strain))
        latency = time_updates(server.address, strain)
    ratios = [ours / theirs for ours, theirs in zip(replay, seed, strict=True)]
    result = {
        "replay_over_seed": statistics.median(ratios),
        "replay_over_seed_rounds": ratios,
        "seed_strain_per_second": statistics.median(seed),
        "replay_strain_per_second": statistics.median(replay),
        "update_latency_ms": latency,
        "stages_ms": time_stages(strain),
        "seed_windows_per_core_second": statistics.median(seed) * RATE / STRIDE / CORES,
        "matrix_product_gflops": matrix_product_rate(),
        "cores": CORES,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
