"""Test data and reference counts that several folders use. Imports no PyTorch."""

import itertools
from pathlib import Path

import h5py
import numpy as np

from chirpwatch.api.contract.injection_set import Injection, PopulationBody
from chirpwatch.api.contract.requests import (
    Block,
    BlockSlide,
    Chunk,
    Event,
    GeometryBody,
    Run,
    Stream,
)
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.client import Scores

GW150914 = 1126259462.42
"""GPS time of the merger GW150914, s."""

START = 1262304000
T0_NS = START * NANOSECONDS
"""Start of generated strain and its signals, GPS s and ns."""

RATE = 2048
GPS = 1_264_316_116
"""Start of RUN's results, GPS s."""

SECOND = 10**9
STRIDE = 125_000_000
MODEL = "9f2c4b7e01ad5c33"

RUN = Run(
    name="A test",
    model=MODEL,
    geometry=GeometryBody.of(Geometry()),
    simulated=True,
    data="nothing real",
)
ZERO_LAG = Stream(kind="zero_lag", shifts={"H1": 0.0, "L1": 0.0}, segment=f"{GPS}-4096")
POPULATION = PopulationBody(
    rejected=90,
    min_mass=5.0,
    max_mass=100.0,
    mass_distribution="log_uniform",
    source_frame=True,
    reference_share=0.0,
    reference_masses=[35.0, 35.0],
    max_redshift=1.0,
    time_dilation=False,
)


def slide(shift, events=(), valid=((0, 64),)):
    """Timeslide in which L1 is shifted; events are (stride, delay, statistic)."""
    strides, delays, statistics = (
        (list(part) for part in zip(*events, strict=True)) if events else ([], [], [])
    )
    return BlockSlide(
        shifts={"H1": 0.0, "L1": shift},
        valid=[list(part) for part in valid],
        strides=strides,
        delays=delays,
        statistics=statistics,
    )


def block(*slides, number=0, strides=1024):
    """Background block of stretch `number`; stretches are 128 s long."""
    return Block(
        start_ns=GPS * SECOND + number * 1024 * STRIDE,
        strides=strides,
        stride_ns=STRIDE,
        slides=list(slides),
    )


def injected(name):
    """Stream with the injection set `name`."""
    return Stream(
        kind="injections",
        shifts={"H1": 0.0, "L1": 0.0},
        segment=f"{GPS}-4096",
        injection_set=name,
    )


def chunk(number, events=(), *, size=64, valid=None, last=False):
    """Chunk `number`, of 8 s each; events are (s after GPS, statistic)."""
    valid = [True] * size if valid is None else valid
    return Chunk(
        start_ns=GPS * SECOND + (number * size + 1) * STRIDE,
        stride_ns=STRIDE,
        valid=valid,
        scores=[float(i) for i in range(size)],
        events=[
            Event(time_ns=GPS * SECOND + round(after * SECOND), statistic=statistic)
            for after, statistic in events
        ],
        last=last,
    )


def drawn(i, after, mass_1=50.0, mass_2=40.0, redshift=0.2):
    """An injection drawn uniformly in volume, `after` seconds after GPS."""
    parameters = {"mass_1": mass_1 + i, "mass_2": mass_2, "redshift": redshift}
    return Injection(
        time_ns=GPS * SECOND + round(after * SECOND), snr=8.0 + i, parameters=parameters
    )


def random_signals(
    mergers: list[int], size: int = 200, seed: int = 0
) -> ProjectedSignals:
    """Random signals with mergers at given samples of the strain."""
    rng = np.random.default_rng(seed)
    merger_size = size * 3 // 4
    return ProjectedSignals(
        ifos=("H1", "L1"),
        sample_rate=RATE,
        strain=rng.standard_normal((len(mergers), 2, size)).astype(np.float32),
        merger_size=merger_size,
        gps_time_ns=np.array(
            [T0_NS + m * NANOSECONDS // RATE for m in mergers], dtype=np.int64
        ),
        parameters={"snr": np.ones(len(mergers))},
    )


def join(pieces: list[Scores]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join a sequence's pieces to arrays of scores, delays and validity."""
    for before, after in itertools.pairwise(pieces):
        assert after.first == before.first + len(before.valid)
    return (
        np.concatenate([piece.score for piece in pieces], axis=1),
        np.concatenate([piece.delay for piece in pieces], axis=1),
        np.concatenate([piece.valid for piece in pieces]),
    )


def valid_by_hand(strides: int, shifts: tuple[int, ...]) -> np.ndarray:
    """Validity of each stride, checked stride by stride."""
    frames = strides * 8
    valid = np.ones(strides, bool)
    for stride in range(strides):
        for shift in (0, *shifts):
            edge = ((stride + 1) * 8 + shift - 1) % frames + 1
            valid[stride] &= edge >= 512
    return valid


def white_strain(seconds: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """White noise of H1 and L1."""
    rng = np.random.default_rng(seed)
    return {ifo: 1e-21 * rng.standard_normal(seconds * RATE) for ifo in ("H1", "L1")}


def write_gwosc(path: Path, ifo: str, data: np.ndarray, rate: int = 4096) -> Path:
    """Write one detector's strain from START on, in GWOSC's file format."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("strain/Strain", data=data)
        dataset.attrs["Xstart"] = START
        dataset.attrs["Xspacing"] = 1 / rate
        file["meta/Detector"] = ifo
    return path


def slide_livetime(strides: int, shift: int) -> float:
    """Livetime of a timeslide of one stretch, s, counted stride by stride.

    The second detector is read ``shift`` feature frames later, circularly. A score is
    valid if in both detectors its data end 8 s or more after the stretch's start.
    """
    frames = 8 * strides
    edges = range(8, frames + 1, 8)
    return (
        sum(edge >= 512 and (edge + shift - 1) % frames + 1 >= 512 for edge in edges)
        / 8
    )
