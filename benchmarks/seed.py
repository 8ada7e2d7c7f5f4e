"""The reference method in PyTorch (the seed), and the processor's matrix product."""

import multiprocessing
import time
from typing import Any

import numpy as np
import onnxruntime
import torch
from ml4gw.transforms import SpectralDensity, Whiten
from onnx import TensorProto

from chirpwatch.export.graph import Graph
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.baseline import SeedResNet

CORES = 2
BATCH = 128
SEED_BATCHES = 4
RATE, STRIDE, PSD_LENGTH, IFOS = 2048, 256, 64, 2


def _worker(barrier: Any, result: Any, rows: int) -> None:
    """Score batches by the seed's method, and report strain scored per second."""
    torch.set_num_threads(1)
    network = SeedResNet(Geometry()).eval()
    psd = SpectralDensity(RATE, 2.0, average="median").double()
    whiten = Whiten(1.0, RATE, 32.0)
    new_size = BATCH * STRIDE
    size = PSD_LENGTH * RATE + 2 * RATE - STRIDE + new_size
    strain = 1e-21 * torch.randn(rows, IFOS, size, dtype=torch.float64)

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
    result.put(SEED_BATCHES * rows * BATCH * STRIDE / RATE / wall)


def time_seed(rows: int) -> float:
    """Measure the seed's throughput on all cores, s of strain per s.

    For each batch of 128 windows, it computes a PSD of the preceding 64 s, whitens,
    unfolds windows of 1 s every 1/8 s, and runs the 2-channel ResNet on each. A
    single-threaded process on each core is its fastest arrangement.

    Args:
        rows: Streams that share a PSD, such as background and injections; the strain
            of each counts.
    """
    context = multiprocessing.get_context("spawn")
    barrier, result = context.Barrier(CORES), context.Queue()
    workers = [
        context.Process(target=_worker, args=(barrier, result, rows))
        for _ in range(CORES)
    ]
    for worker in workers:
        worker.start()
    total = sum(result.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def matrix_product_rate() -> float:
    """Measure a large fp32 matrix product on one core, GFLOP/s.

    The faster of PyTorch and ONNX Runtime.
    """
    torch.set_num_threads(1)
    size, n = 2048, 5
    graph = Graph()
    model = graph.model(
        "product",
        inputs=[(name, TensorProto.FLOAT, [size, size]) for name in ("a", "b")],
        outputs=[("c", graph.MatMul("a", "b"), TensorProto.FLOAT, [size, size])],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    tensor = torch.from_numpy(matrix)
    rates = []
    for product in (
        lambda: tensor @ tensor,
        lambda: session.run(None, {"a": matrix, "b": matrix}),
    ):
        product()
        begin = time.process_time()
        for _ in range(n):
            product()
        rates.append(n * 2 * size**3 / (time.process_time() - begin) / 1e9)
    return max(rates)
