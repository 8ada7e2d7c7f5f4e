"""Speed of a replay's scoring, compared with the seed's method.

Both score the same simulated strain, background and injected stream, alternately on the
same two cores. A replay's time includes requests over gRPC, the embedded Triton,
whitening and network, with two sequences at once.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.memory import server_memory
from benchmarks.seed import CORES, IFOS, RATE, STRIDE, time_seed
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.shipped import SHIPPED
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.train.data.noise.background import simulate_background

ROUNDS = 5
LENGTH = 1024
REQUEST_STRIDES = 512
UPDATES = 2000


def time_replay(address: str, strain: np.ndarray) -> float:
    """Measure the throughput of Triton with two sequences at once, s of strain per s.

    Args:
        address: Triton's address.
        strain: [rows, ifos, size].
    """
    strides = strain.shape[-1] // STRIDE

    def sequence(_: int) -> int:
        detector = ScoreClient(address)
        pieces = detector.stream(
            lambda a, b: strain[..., a:b], strides, REQUEST_STRIDES
        )
        return sum(piece.score.size for piece in pieces)

    begin = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        scored = sum(pool.map(sequence, range(2 * CORES)))
    return scored * STRIDE / RATE / (time.perf_counter() - begin)


def time_updates(address: str, strain: np.ndarray) -> dict[str, float]:
    """Measure the latency of single updates of 1/8 s through Triton, ms."""
    detector = ScoreClient(address, window=1)
    latencies = [
        1e3 * piece.latency
        for piece in detector.stream(lambda a, b: strain[..., a:b], UPDATES, 1)
    ]
    p50, p99 = np.percentile(latencies[8:], (50, 99))
    return {"median": p50, "p99": p99}


def time_merged_model(strain: np.ndarray) -> dict[str, float]:
    """Measure the time of updates in ONNX Runtime, without a server, ms."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = SHIPPED / "detector" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), options)
    state = np.zeros(1, np.float32)
    lengths = []
    for i in range(UPDATES):
        begin = i * STRIDE
        feed = {
            "strain": strain[..., begin : begin + STRIDE],
            "position": np.full(IFOS, begin),
            "state": state,
        }
        start = time.perf_counter()
        *_, state = session.run(["score", "delay", "valid", "new_state"], feed)
        lengths.append(1e3 * (time.perf_counter() - start))
    p50, p99 = np.percentile(lengths[8:], (50, 99))
    return {"median": p50, "p99": p99}


def time_stages(strain: np.ndarray) -> dict[str, float]:
    """Measure the CPU time of each model, ms for a second of both rows, on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(
            str(SHIPPED / name / "1" / "model.onnx"), options
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
    state = np.zeros(1, np.float32)
    for begin in range(0, strain.shape[-1], size):
        position = np.full(IFOS, begin)
        feed = {"strain": strain[..., begin : begin + size], "position": position}
        names = ["snapshot", "filters", "whole", "new_state"]
        snapshot, filters, whole, state = run(
            "snapshotter", names, feed | {"state": state}
        )
        feed = {"snapshot": snapshot, "filters": filters, "position": position}
        whitened, usable = run("preprocessor", ["whitened", "usable"], feed)
        (features,) = run("frontend", ["features"], {"whitened": whitened})
        feed = {"features": features, "usable": usable, "whole": whole}
        run("head", ["score", "delay", "valid"], feed)
    length = size / RATE
    return {name: 1e3 * statistics.median(t) / length for name, t in times.items()}


def measure() -> dict[str, Any]:
    """Run both alternately, and measure latency and memory, JSON-ready."""
    data, _ = simulate_background(LENGTH, "O3", ("H1", "L1"), RATE, seed=0)
    background = np.stack([data["H1"], data["L1"]]).astype(np.float32)
    strain = np.stack([background, background])
    seed, replay = [], []
    with TritonServer(SHIPPED) as server:
        # The first requests allocate memory.
        time_replay(server.address, strain)
        for _ in range(ROUNDS):
            seed.append(time_seed(rows=2))
            replay.append(time_replay(server.address, strain))
        latency = time_updates(server.address, strain)
        memory = server_memory(server.pid)
    with TritonServer(SHIPPED, configuration=None) as server:
        time_replay(server.address, strain)
        ensemble_latency = time_updates(server.address, strain)
        ensemble_memory = server_memory(server.pid)
    ratios = [ours / theirs for ours, theirs in zip(replay, seed, strict=True)]
    return {
        "replay_over_seed": statistics.median(ratios),
        "replay_over_seed_rounds": ratios,
        "seed_strain_per_second": statistics.median(seed),
        "replay_strain_per_second": statistics.median(replay),
        "update_latency_ms": latency,
        "update_latency_of_ensemble_ms": ensemble_latency,
        "update_in_onnxruntime_ms": time_merged_model(strain),
        "server_memory_mib": memory,
        "server_memory_of_ensembles_mib": ensemble_memory,
        "stages_ms": time_stages(strain),
        "seed_windows_per_core_second": statistics.median(seed) * RATE / STRIDE / CORES,
    }
