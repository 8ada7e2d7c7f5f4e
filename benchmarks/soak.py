"""Endurance test of a live search, for a day: ``python -m benchmarks.soak FOLDER``.

Simulates strain of H1 and L1 with glitches and gaps, and writes it as frame files at
``--speed`` times real time. A live search, with Triton, the results service and a
background of the same model, analyses it while a client polls the results page. Prints,
and writes to ``FOLDER/soak.json``, memory (proportional set size), open files and
threads of every process, early and late, and whether all strides were scored. Fails if
a process grew or results were lost. A day at 60 times real time takes 25 minutes of two
cores, and 4 GB.
"""

import contextlib
import json
import re
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
import numpy as np

from benchmarks.live import live_system, run
from chirpwatch.background_file import read_background
from chirpwatch.geometry import Geometry

START = 1_262_304_000
SAMPLE = 5.0
"""Time between two samples of the processes' resources, s."""

GROWTH, SLACK = 0.05, 8.0
"""Largest growth of a process that counts as flat: a share, plus MB."""

NAMES = {
    "tritonserver": "Triton",
    "triton_python_backend_stub": "Triton, a model",
    "-m api": "results service",
    "cli live": "live search",
    "spawn_main": "live search, a reader",
    "resource_tracker": "live search, resource tracker",
    "cli frames": "frame writer",
}


def descendants(roots: set[int]) -> Iterator[int]:
    """Process ids of the roots and all their descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(
                path.read_text().rpartition(")")[2].split()[1]
            )
    for pid in parents:
        above = pid
        while above in parents and above not in roots:
            above = parents[above]
        if above in roots:
            yield pid


def name_of(pid: int) -> str:
    """Name of a process by its command line, for the report."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    for part, name in NAMES.items():
        if part in line:
            return name
    return line.split("/")[-1][:40]


def resources(pid: int) -> tuple[float, int, int]:
    """PSS (MiB), number of open files and number of threads of a process."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert pss is not None
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return int(pss[1]) / 1024, files, threads


@dataclass
class Watch:
    """Samples the resources of processes over time.

    Attributes:
        roots: Processes to watch, with their descendants.
        samples: By process id and name: for each sample, the strain analysed so far, s,
            and the process's ``resources``.
    """

    roots: set[int]
    samples: dict[tuple[int, str], list[tuple[float, float, int, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def sample(self, analysed: float) -> None:
        """Sample all processes, when ``analysed`` seconds of strain are done."""
        for pid in descendants(self.roots):
            # A process may end in between.
            with contextlib.suppress(OSError):
                self.samples[pid, name_of(pid)].append((analysed, *resources(pid)))

    def table(self, length: float) -> list[dict]:
        """Resources of each process early and late, medians over a tenth of the strain.

        Args:
            length: Strain analysed in all, s.
        """
        rows = []
        ordered = sorted(self.samples.items(), key=lambda item: item[0][1])
        for (pid, name), samples in ordered:
            at, memory, files, threads = map(np.array, zip(*samples, strict=True))
            # The first fifth fills caches, such as PSDs and database pages.
            early = (at > 0.2 * length) & (at <= 0.3 * length)
            late = at > 0.9 * length
            row: dict = {"pid": pid, "name": name}
            for key, values in (
                ("memory_mb", memory),
                ("files", files),
                ("threads", threads),
            ):
                for when, chosen in (("early", early), ("late", late)):
                    sampled = values[chosen].size > 0
                    row[f"{key}_{when}"] = (
                        round(float(np.median(values[chosen])), 1) if sampled else None
                    )
            # One sample per hour of strain.
            step = max(1, round(at.size * 3600 / length))
            row["memory_mb"] = [
                [round(float(a) / 3600, 2), round(float(m), 1)]
                for a, m in zip(at[::step], memory[::step], strict=True)
            ]
            row["flat"] = None not in row.values() and (
                row["memory_mb_late"] <= (1 + GROWTH) * row["memory_mb_early"] + SLACK
                and row["files_late"] <= row["files_early"] + 4
                and row["threads_late"] <= row["threads_early"] + 2
            )
            rows.append(row)
        return rows


def poll(url: str, ended: threading.Event) -> list[float]:
    """Repeat the results page's requests until ``ended``; return response times, s."""
    times = []
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        while not ended.wait(1.0):
            runs = [
                each["id"]
                for each in http.get("/v1/runs").raise_for_status().json()["runs"]
                if each["id"].startswith("live-")
            ]
            for name in runs:
                for what in (
                    "",
                    "/scores?points=1000",
                    "/candidates?limit=50",
                    "/ifar",
                    "/drift",
                ):
                    begin = time.monotonic()
                    http.get(f"/v1/runs/{name}{what}").raise_for_status()
                    times.append(time.monotonic() - begin)
            http.get("/metrics").raise_for_status()
    return times


@contextlib.contextmanager
def in_memory(path: Path) -> Iterator[Path]:
    """Link ``path`` to a directory in shared memory, where sites put frame files."""
    shared = Path("/dev/shm")  # noqa: S108 - a new directory in it
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as target:
        path.symlink_to(target)
        yield path
    path.unlink()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--hours", default=24.0, show_default=True, help="Strain, h.")
@click.option("--speed", default=60.0, show_default=True, help="Speed, x real time.")
def main(folder: Path, hours: float, speed: float) -> None:
    """Run a live search for a day of strain; check that nothing grows or is lost."""
    folder.mkdir(parents=True)
    length = round(hours * 3600)
    simulation = (
        *("--duration", length, "--seed", 2, "--glitch-rate", 0.2),
        *("--gap-rate", 1, "--gap-length", 30),
    )
    command = run("simulate", "background", folder / "live.hdf5", *simulation)
    subprocess.run(command, check=True)
    geometry = Geometry()
    segments = read_background(
        folder / "live.hdf5", "test", geometry.ifos, geometry.sample_rate
    )
    lengths = [int(segment.duration) for segment in segments]
    warmup = geometry.warmup_strides * geometry.stride_length
    livetime = sum(max(0.0, duration - warmup) for duration in lengths)
    newest = segments[-1].t0_ns // 10**9 + lengths[-1]
    ended = threading.Event()
    # This FAR gives as many candidates as months of a search.
    options = ("--patience", 5, "--far", 50_000)
    with (
        in_memory(folder / "frames") as frames,
        live_system(folder, *options) as system,
        ThreadPoolExecutor(1) as pool,
    ):
        search, api = system.search, system.api
        begin = time.monotonic()
        writer = subprocess.Popen(
            run(
                *("frames", "--background", folder / "live.hdf5", "--frames", frames),
                *("--speed", speed, "--kept", 3000),
            )
        )
        polled = pool.submit(poll, api.url, ended)
        watch = Watch({system.triton.pid, api.pid, search.pid, writer.pid})
        done = waiting = 0.0
        try:
            while done < newest:
                if search.poll() is not None or writer.poll() not in {None, 0}:
                    raise SystemExit(
                        "expected search and frame writer to run, found that one "
                        f"ended; see the logs in {folder}"
                    )
                metrics = system.metrics()
                done = metrics.get(("chirpwatch_live_newest_gps_seconds",), 0.0)
                waiting = max(
                    waiting, metrics.get(("chirpwatch_live_waiting_results",), 0.0)
                )
                watch.sample(max(0.0, done - START))
                print(f"\r{max(0.0, done - START) / 3600:.2f} h", end="", flush=True)
                time.sleep(SAMPLE)
            wall = time.monotonic() - begin
            metrics = system.metrics()
        finally:
            ended.set()
            system.end()
            writer.kill()
            writer.wait()
        with api.client() as client:
            runs = [
                client.run(each.id)
                for each in client.runs().runs
                if each.id.startswith("live-")
            ]
    rows = watch.table(newest - START)
    response_times = polled.result()
    result = {
        "strain_s": newest - START,
        "stretches": len(lengths),
        "speed": round((newest - START) / wall, 1),
        "runs": len(runs),
        "livetime_expected_s": livetime,
        "livetime_s": sum(each.zero_lag.livetime for each in runs),
        "events": sum(each.zero_lag.events for each in runs),
        "candidates": metrics["chirpwatch_live_candidates_total",],
        "told": metrics.get(("chirpwatch_live_told_total", "told", "file"), 0.0),
        "server_failures": metrics["chirpwatch_live_server_failures_total",],
        "sequences": metrics["chirpwatch_live_sequences_total",],
        "waiting_results_highest": waiting,
        "answers": len(response_times),
        "answer_p99_ms": round(1000 * float(np.quantile(response_times, 0.99)), 1),
        "disk_mb": {
            name: round((folder / name).stat().st_size / 1e6, 1)
            for name in ("results.db", "triton.log", "api.log", "live.log")
        },
        "processes": rows,
    }
    (folder / "soak.json").write_text(json.dumps(result, indent=1))
    print(f"\r{json.dumps({k: v for k, v in result.items() if k != 'processes'})}")
    print(f"{'':30}{'memory, MB':>18}{'files':>12}{'threads':>12}")
    for row in rows:
        parts = [
            f"{row[f'{key}_early']} → {row[f'{key}_late']}"
            for key in ("memory_mb", "files", "threads")
        ]
        mark = "" if row["flat"] else "   GREW"
        print(f"{row['name']:30}{parts[0]:>18}{parts[1]:>12}{parts[2]:>12}{mark}")
    complete = (
        result["livetime_s"] == livetime
        and result["candidates"] == result["told"]
        and result["sequences"] == len(lengths)
    )
    if not complete or not all(row["flat"] for row in rows):
        raise SystemExit(
            "expected flat processes and all livetime, candidates and sequences; see "
            f"{folder / 'soak.json'}"
        )


if __name__ == "__main__":
    main()
