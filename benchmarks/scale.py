"""The results service with 10^8 events: ``python -m benchmarks.scale FOLDER``.

Sends 10,000 timeslides of ten stretches of strain to the results service, as a
cluster's jobs do, 10,000 events in each request. Meanwhile it requests FAR, IFAR curve
and candidates repeatedly. Prints, and writes to ``FOLDER/scale.json``, the ingestion
rate, response times, memory and the size of the database. Checks the counts in the
replies. Takes about ten minutes of two cores and 3 GB.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import numpy as np

from chirpwatch.api.contract.requests import (
    Chunk,
    Event,
    GeometryBody,
    Run,
    Stream,
)
from chirpwatch.api.process import ApiProcess
from chirpwatch.geometry import Geometry
from chirpwatch.units import JULIAN_YEAR

GPS = 1_264_316_116
STRIDE_NS = 125_000_000
SLIDES_IN_BLOCK = 10
EVENTS_IN_SLIDE = 1000
STEP = 2.125
"""Difference of two slides' shifts, s."""

VARIANTS = 40
"""Number of distinct lists of events; each is sent with many shifts."""

PAUSE = 0.02
"""Pause between two queries, s."""

QUESTIONS = {
    "far": "far?statistic=5.0",
    "ifar": "ifar",
    "candidates": "candidates?limit=50",
}


def slide_lists(strides: int, seed: int) -> tuple[str, np.ndarray]:
    """Draw a slide's events; return them as JSON, and their statistics.

    Their rate falls by a factor of e per unit of the statistic, as a network's does.
    """
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(np.arange(64, strides), EVENTS_IN_SLIDE, replace=False))
    delays = np.round(rng.uniform(0.5, 1.5, EVENTS_IN_SLIDE), 4)
    statistics = np.round(rng.exponential(size=EVENTS_IN_SLIDE) - 8, 4)
    lists = {
        "valid": [[64, strides]],
        "strides": places.tolist(),
        "delays": delays.tolist(),
        "statistics": statistics.tolist(),
    }
    return json.dumps(lists)[1:], statistics


def bodies(slides: int, stretches: int, used: np.ndarray) -> Iterator[str]:
    """Generate the requests' bodies, and count in ``used`` each list's uses."""
    strides = round((slides + 1) * STEP / 0.125)
    lists = [slide_lists(strides, seed)[0] for seed in range(VARIANTS)]
    rng = np.random.default_rng(1)
    for stretch in range(stretches):
        start = GPS * 10**9 + stretch * strides * STRIDE_NS
        for first in range(0, slides, SLIDES_IN_BLOCK):
            parts = []
            for slide in range(first, first + SLIDES_IN_BLOCK):
                chosen = int(rng.integers(VARIANTS))
                used[chosen] += 1
                shifts = f'{{"shifts": {{"H1": 0, "L1": {(slide + 1) * STEP}}}, '
                parts.append(shifts + lists[chosen])
            yield (
                f'{{"start_ns": {start}, "strides": {strides}, "stride_ns": '
                f'{STRIDE_NS}, "slides": [{", ".join(parts)}]}}'
            )


class Asker(threading.Thread):
    """Repeats the queries until it is stopped, and records the response times, s."""

    def __init__(self, base: str) -> None:
        super().__init__(daemon=True)
        self.base = base
        self.times: dict[str, list[float]] = {name: [] for name in QUESTIONS}
        self.ended = threading.Event()

    def run(self) -> None:
        """Repeat the queries."""
        with httpx.Client(trust_env=False, timeout=60) as http:
            while not self.ended.is_set():
                for name, question in QUESTIONS.items():
                    begin = time.perf_counter()
                    answer = http.get(f"{self.base}/{question}")
                    self.times[name].append(time.perf_counter() - begin)
                    # 409: before the first block, there is no rate.
                    assert answer.status_code in {200, 409}, answer.text
                    time.sleep(PAUSE)


def memory(pid: int) -> tuple[float, float]:
    """Current and peak resident memory of a process, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    now, most = (int(values[name].split()[0]) / 1000 for name in ("VmRSS", "VmHWM"))
    return now, most


def measure(
    folder: Path, database: str, slides: int, stretches: int
) -> dict[str, object]:
    """Send all events, measure queries meanwhile, and check their counts.

    Args:
        folder: Folder of the log.
        database: Path or URL of the database.
        slides: Timeslides of each stretch.
        stretches: Number of stretches.

    Returns:
        JSON-ready figures.
    """
    total = slides * stretches * EVENTS_IN_SLIDE
    used = np.zeros(VARIANTS, np.int64)
    with ApiProcess(database, log=folder / "api.log") as api:
        with api.client() as client:
            run = Run(
                name="Scale",
                model="0" * 16,
                geometry=GeometryBody.of(Geometry()),
                simulated=True,
                data="random numbers",
            )
            client.put_run("scale", run)
            still = {"H1": 0.0, "L1": 0.0}
            stream = Stream(kind="zero_lag", shifts=still, segment=f"{GPS}-4096")
            client.put_stream("scale", "zl", stream)
            times = [GPS * 10**9 + (8 * i + 4) * 10**9 for i in range(500)]
            events = [Event(time_ns=t, statistic=i / 50) for i, t in enumerate(times)]
            client.put_chunk(
                "scale",
                "zl",
                0,
                Chunk(
                    start_ns=GPS * 10**9 + STRIDE_NS,
                    stride_ns=STRIDE_NS,
                    valid=[True] * 32_768,
                    scores=[0.0] * 32_768,
                    events=events,
                ),
            )
        base = f"{api.url}/v1/runs/scale"
        asker = Asker(base)
        asker.start()
        headers = {
            "Authorization": f"Bearer {api.token}",
            "Content-Type": "application/json",
        }
        per_block = SLIDES_IN_BLOCK * EVENTS_IN_SLIDE
        laps = []
        with httpx.Client(trust_env=False, timeout=60, headers=headers) as http:
            begin = time.perf_counter()
            for number, body in enumerate(bodies(slides, stretches, used)):
                answer = http.put(f"{base}/background/{number}", content=body)
                assert answer.status_code == 201, answer.text
                laps.append(time.perf_counter() - begin)
        asker.ended.set()
        asker.join()
        resident, most = memory(api.pid)
        far = httpx.get(f"{base}/far?statistic=5.0").json()
        quiet = httpx.get(f"{base}/far?statistic=-6.0").json()
    strides = round((slides + 1) * STEP / 0.125)
    statistics = [slide_lists(strides, seed)[1] for seed in range(VARIANTS)]
    for answer in (far, quiet):
        value = np.float32(answer["statistic"])
        passing = [np.count_nonzero(s.astype("<f4") >= value) for s in statistics]
        true = int(used @ passing)
        assert answer["count"] - answer["uncertain"] <= true <= answer["count"]
    with ApiProcess(database, log=folder / "api.log") as api:
        begin = time.perf_counter()
        again = httpx.get(f"{api.url}/v1/runs/scale/far?statistic=5.0", timeout=600)
        first_answer = time.perf_counter() - begin
        assert again.json() == far
    tenth = max(1, len(laps) // 10)
    return {
        "events": total,
        "slides": slides,
        "stretches": stretches,
        "livetime_years": far["livetime"] / JULIAN_YEAR,
        "events_per_second": total / laps[-1],
        "events_per_second_last_tenth": tenth
        * per_block
        / (laps[-1] - laps[-1 - tenth]),
        "milliseconds": {
            name: {
                "median": 1000 * float(np.median(values)),
                "p99": 1000 * float(np.quantile(values, 0.99)),
                "max": 1000 * max(values),
                "asked": len(values),
            }
            for name, values in asker.times.items()
        },
        "memory_mb": resident,
        "most_memory_mb": most,
        "first_answer_after_a_restart_s": first_answer,
        "count_above_5": far["count"],
        "exact_from": far["floor"],
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--database", help="Database URL.  [default: an SQLite file in FOLDER]")
@click.option(
    "--slides", default=10_000, show_default=True, help="Timeslides of each stretch."
)
@click.option("--stretches", default=10, show_default=True, help="Stretches of strain.")
def main(folder: Path, database: str | None, slides: int, stretches: int) -> None:
    """Measure the results service under 10^8 events; write FOLDER/scale.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.db"
    if database is None and path.exists():
        sys.exit(f"{path}: exists already; choose another folder")
    result = measure(folder, database or str(path), slides, stretches)
    if database is None:
        result["database_gb"] = path.stat().st_size / 1e9
    (folder / "scale.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
