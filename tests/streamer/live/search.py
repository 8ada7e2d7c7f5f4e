"""The live search as a process, frames as its input, and checks of its results."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chirpwatch.api.contract.requests import (
    Block,
    BlockSlide,
    GeometryBody,
    Run,
)
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.live.frame_writer import FrameWriter

GPS = 1_262_304_000
RATE = 2048
LENGTH = 100
BURSTS = {30: 2e-20, 47: 3e-20, 80: 2.5e-20}
"""Impulses: the second in whose middle each lies, and its height."""

IFOS = ("H1", "L1")


def with_bursts():
    """White noise with impulses, float64 [ifos, samples]."""
    rng = np.random.default_rng(5)
    data = 1e-22 * rng.standard_normal((2, LENGTH * RATE))
    for second, height in BURSTS.items():
        data[:, second * RATE + RATE // 2] += height
    return data


def with_background(client, address):
    """Store a year's background of the model, with statistics of 1 to 30."""
    detector = ScoreClient(address)
    client.put_run(
        "noise",
        Run(
            name="noise",
            model=detector.model,
            geometry=GeometryBody.of(detector.geometry),
            simulated=True,
            data="made up",
        ),
    )
    strides = 2**23
    client.put_block(
        "noise",
        0,
        Block(
            start_ns=GPS * 10**9,
            strides=strides,
            stride_ns=125_000_000,
            slides=[
                BlockSlide(
                    shifts={"H1": 0.0, "L1": 4.0 * number},
                    valid=[[0, strides]],
                    strides=[100],
                    delays=[1.0],
                    statistics=[float(number)],
                )
                for number in range(1, 31)
            ],
        ),
    )


class Search:
    """``chirpwatch live`` as a process; a context manager that ends it."""

    def __init__(self, folder, frames, triton, api, *options):
        self.folder = folder
        token = folder / "token"
        token.write_text(api.token)
        self.command = [
            *(sys.executable, "-m", "chirpwatch", "live", "--simulated"),
            *("--frames", frames, "--directory", folder / "live"),
            *("--triton", triton, "--api", api.url, "--token-file", token),
            *("--metrics-port", "0", "--patience", "1.5", "--far", "2"),
            *options,
        ]

    def __enter__(self):
        self.process = subprocess.Popen(
            [str(part) for part in self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        line = self.process.stdout.readline()
        assert " INFO live: metrics at " in line, line + self.process.stdout.read()
        self.metrics_url = line.split()[-1]
        return self

    def __exit__(self, *arguments):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def metrics(self):
        text = httpx.get(self.metrics_url, trust_env=False).text
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def wait_until(self, gps, timeout=60):
        """Wait until a GPS time was scored or declared a gap."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.stdout.read()
            with contextlib.suppress(httpx.HTTPError):
                if self.metrics()["chirpwatch_live_newest_gps_seconds",] >= gps:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not at GPS {gps}: {self.metrics()}")

    def end(self):
        """End it as an operator does, and return its output."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, out
        return out

    def candidates(self):
        path = self.folder / "live" / "candidates.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]


def write(frames, strain, seconds, ifos=IFOS):
    for second in seconds:
        for ifo in ifos:
            part = strain[IFOS.index(ifo), second * RATE : (second + 1) * RATE]
            FrameWriter(frames).write(ifo, GPS + second, part)


def expected_scores(address, strain, start, stop):
    """Score a span offline, as a single sequence; return scores and right edges, s."""
    part = strain[:, start * RATE : stop * RATE].astype(np.float32)
    strides = 8 * (stop - start)
    pieces = ScoreClient(address).stream(lambda a, b: part[None, :, a:b], strides, 64)
    score, valid = (
        np.concatenate(parts)
        for parts in zip(*((one.score[0], one.valid) for one in pieces), strict=True)
    )
    return start + np.arange(1, strides + 1) / 8, score, valid


def check_scores(client, run, address, strain, stretches):
    """Each valid stride is stored once, with the score that it has offline."""
    parts = [expected_scores(address, strain, *one) for one in stretches]
    edges, score, valid = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = client.scores(run, points=20_000)
    assert found.bucket == 0.125
    assert np.array(found.time) - GPS == pytest.approx(edges)
    assert [one is not None for one in found.maximum] == valid.tolist()
    theirs = np.array([np.nan if one is None else one for one in found.maximum])
    assert theirs[valid] == pytest.approx(score[valid], rel=1e-5, abs=1e-5)
    assert client.run(run).zero_lag.livetime == np.count_nonzero(valid) / 8


def check_candidates(found):
    """Check that each impulse has a single candidate, at its time, in order."""
    times = [second + 0.5 for second in BURSTS]
    assert [one["time"] - GPS for one in found] == pytest.approx(times, abs=1 / 16)


def live_run(client):
    (run,) = [one for one in client.runs().runs if one.id.startswith("live-")]
    return run
