"""Speed of timeslides, compared with the seed's method and with single slides.

The seed runs its network on each window of each slide. A single slide is a sequence of
the ``detector`` ensemble on shifted strain. The time of ``timeslides`` includes all
that a background run does: requests with a stretch and a list of shifts over gRPC, the
embedded Triton, whitening, network and the events of every slide; two requests at once.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import PeakMemory
from benchmarks.seed import CORES, RATE, STRIDE, matrix_product_rate, time_seed
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.shipped import SHIPPED
from chirpwatch.strain import Segment
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.replay.jobs import SequenceJob
from chirpwatch.streamer.timeslides import (
    PEAKS,
    Timeslides,
)
from chirpwatch.train.data.noise.background import simulate_background
from chirpwatch.train.networks.checkpoint import load_checkpoint
from chirpwatch.train.networks.matched import MatchedNetwork

CHECKPOINT = (
    Path(__file__).parent.parent / "train" / "checkpoints" / "matched" / "network.ckpt"
)
ROUNDS = 5
LENGTH = 256
SLIDES = 100
REPEATS = 4
CURVE_SLIDES = (1, 10, 100, 1000)
CURVE_LENGTHS = (64, 256, 512, 1024)
SHIFT_STEP = 2.046875
"""Step of the shifts, s: kernel, filter and light-travel time."""


def time_timeslides(
    address: str, strain: np.ndarray, slides: int, requests: int
) -> float:
    """Measure livetime per second through Triton with two requests at once.

    Args:
        address: Triton's address.
        strain: A stretch, [ifos, size].
        slides: Timeslides in a request.
        requests: Number of requests.
    """
    length = strain.shape[1] / RATE
    geometry = Geometry()
    # More slides than fit at this step get a smaller one; the cost is the same.
    step = min(SHIFT_STEP, (length - 2 * SHIFT_STEP) / slides)
    frames = round(step * RATE / geometry.frame_size) or 1
    period = strain.shape[1] // geometry.frame_size
    shifts = (1 + np.arange(slides)) * frames % period

    def request(_: int) -> None:
        Timeslides(address).events(strain, np.unique(shifts)[:, None])

    begin = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(request, range(requests)))
    livetime = len(np.unique(shifts)) * requests * length
    return livetime / (time.perf_counter() - begin)


def time_one_by_one(address: str, segment: Segment, slides: int) -> float:
    """Measure livetime per second with a sequence for each slide, two at once."""
    detector = ScoreClient(address)

    def slide(number: int) -> float:
        job = SequenceJob(segment, detector.geometry, (0.0, (number + 1) * SHIFT_STEP))
        pieces = ScoreClient(address).stream(
            job.read, job.strides, 512, offsets=job.offsets
        )
        return sum(len(piece.valid) for piece in pieces) * STRIDE / RATE

    begin = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        scored = sum(pool.map(slide, range(slides)))
    return scored / (time.perf_counter() - begin)


def time_stages(stretch: np.ndarray) -> dict[str, float]:
    """Measure the CPU time of each model, µs per second of a slide's livetime."""
    geometry = Geometry()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    ifos = len(geometry.ifos)
    frames = (1 + np.arange(SLIDES)) * round(SHIFT_STEP * RATE / geometry.frame_size)
    feed = {
        "strain": stretch[None],
        "shifts": frames[:, None],
        "position": np.zeros(ifos, np.int64),
    }
    times = {}
    for name, outputs in {
        "stretch": ("snapshot", "filters"),
        "preprocessor": ("whitened", "usable"),
        "frontend": ("features",),
        "slides": (*PEAKS, "valid"),
    }.items():
        session = onnxruntime.InferenceSession(
            str(SHIPPED / name / "1" / "model.onnx"), options
        )
        inputs = {each.name: feed[each.name] for each in session.get_inputs()}
        lengths = []
        for _ in range(ROUNDS):
            begin = time.process_time()
            values = session.run(list(outputs), inputs)
            lengths.append(time.process_time() - begin)
        feed.update(zip(outputs, values, strict=True))
        times[name] = 1e6 * statistics.median(lengths) / SLIDES / LENGTH
    return times


def operations() -> dict[str, float]:
    """Count the floating-point operations, MFLOP per second of strain.

    Returns:
        ``stretch``: whitening and frontend of both detectors; ``slide``: the head.
    """
    network = load_checkpoint(CHECKPOINT)[0].fused()
    assert isinstance(network, MatchedNetwork)
    geometry = network.geometry
    length = 16
    whitened = torch.zeros(1, len(geometry.ifos), length * geometry.sample_rate)
    taps = geometry.filter_size + 1
    whitening = 2 * taps * geometry.sample_rate * len(geometry.ifos)
    with torch.no_grad(), FlopCounterMode(display=False) as frontend:
        features = network.features(whitened)
    with torch.no_grad(), FlopCounterMode(display=False) as head:
        network.head.evaluate(features.sum(1))
    return {
        "stretch": (whitening + frontend.get_total_flops() / length) / 1e6,
        "slide": head.get_total_flops() / length / 1e6,
    }


def measure() -> dict[str, Any]:
    """Run all alternately, then vary slides and length; JSON-ready figures."""
    geometry = Geometry()
    longest = max(CURVE_LENGTHS)
    data, _ = simulate_background(longest, "O3", geometry.ifos, RATE, seed=0)
    strain = np.stack([data[ifo] for ifo in geometry.ifos]).astype(np.float32)
    stretch = strain[:, : LENGTH * RATE]
    segment = Segment(0, RATE, dict(zip(geometry.ifos, stretch, strict=True)))
    seed, one_by_one, ours, curve = [], [], [], []
    with TritonServer(SHIPPED) as server:
        time_timeslides(server.address, stretch, SLIDES, CORES)
        for _ in range(ROUNDS):
            seed.append(time_seed(rows=1))
            one_by_one.append(time_one_by_one(server.address, segment, 2 * CORES))
            rate = time_timeslides(server.address, stretch, SLIDES, REPEATS * CORES)
            ours.append(rate)
    for length in CURVE_LENGTHS:
        # A new server for each length, since a server keeps memory it has allocated.
        with TritonServer(SHIPPED) as server:
            part = strain[:, : length * RATE]
            time_timeslides(server.address, part, 1, CORES)
            for slides in CURVE_SLIDES:
                rate = time_timeslides(server.address, part, slides, 2 * CORES)
                # A separate run, since measuring memory takes time.
                with PeakMemory(server.pid) as peak:
                    time_timeslides(server.address, part, slides, CORES)
                curve.append(
                    {
                        "stretch_length": length,
                        "slides": slides,
                        "slide_seconds_per_second": rate,
                        "server_memory_mib": peak.mib,
                    }
                )
    mflop = operations()
    per_slide_second = (mflop["stretch"] / SLIDES + mflop["slide"]) * 1e6
    floor = CORES * matrix_product_rate() * 1e9 / per_slide_second
    ratios = [mine / theirs for mine, theirs in zip(ours, seed, strict=True)]
    return {
        "timeslides_over_seed": statistics.median(ratios),
        "timeslides_over_seed_rounds": ratios,
        "seed_slide_seconds_per_second": statistics.median(seed),
        "one_by_one_slide_seconds_per_second": statistics.median(one_by_one),
        "timeslides_slide_seconds_per_second": statistics.median(ours),
        "timeslides_stages_us": time_stages(stretch),
        "timeslides_mflop_per_second": mflop,
        "timeslides_at_matrix_product_rate": floor,
        "timeslides_curve": curve,
    }
