"""A day of live strain, faster than real time: ``python -m benchmarks.soak FOLDER``.

Strain of H1 and L1 with glitches and gaps is simulated, and written as frames at
``--speed`` times real time. The live search, with Triton and the results service, takes
it as it would in a control room: its candidates rest on a background of the same model,
and somebody looks at its page all the while. Prints, and writes to
``FOLDER/soak.json``, the memory (proportional set size), open files and threads of
every process early and late, and whether all strides came out. Exits with an error
where something grew, or was lost. A day at 60 times real time takes 25 minutes of two
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
"""Between two looks at the processes, s."""

GROWTH, SLACK = 0.05, 8.0
"""A process is flat where it grew by no more than this share and as many MB."""

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
    """The processes and all that they started."""
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
    """What a process is."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    for part, name in NAMES.items():
        if part in line:
            return name
    return line.split("/")[-1][:40]


def look(pid: int) -> tuple[float, int, int]:
    """Memory (MB), open files and threads of a process."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return int(found[1]) / 1024, files, threads


@dataclass
class Watch:
    """What the processes used, as time went by.

    Attributes:
        roots: Processes that are watched, with all that they start.
        seen: For each process: its name and, of each look, the strain that had been
            analysed, s, and what ``look`` found.
    """

    roots: set[int]
    seen: dict[tuple[int, str], list[tuple[float, float, int, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def look(self, analysed: float) -> None:
        """Look at all of them."""
        for pid in descendants(self.roots):
            # One may end meanwhile.
            with contextlib.suppress(OSError):
                self.seen[pid, name_of(pid)].append((analysed, *look(pid)))

    def table(self, length: float) -> list[dict]:
        """For each process what it used early and late, medians of a tenth."""
        rows = []
        for (pid, name), looks in sorted(self.seen.items(), key=lambda one: one[0][1]):
            at, memory, files, threads = map(np.array, zip(*looks, strict=True))
            # The first fifth fills caches: the PSDs, the database's pages.
            early = (at > 0.2 * length) & (at <= 0.3 * length)
            late = at > 0.9 * length
            row: dict = {"pid": pid, "name": name}
            for key, values in (
                ("memory_mb", memory),
                ("files", files),
                ("threads", threads),
            ):
                for when, chosen in (("early", early), ("late", late)):
                    there = values[chosen].size > 0
                    row[f"{key}_{when}"] = (
                        round(float(np.median(values[chosen])), 1) if there else None
                    )
            # One look of an hour of strain.
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


def ask(url: str, ended: threading.Event) -> list[float]:
    """Ask what the page asks, over and over; how long each answer took, s."""
    times = []
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        while not ended.wait(1.0):
            runs = [
                one["id"]
                for one in http.get("/v1/runs").raise_for_status().json()["runs"]
                if one["id"].startswith("live-")
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
    """A directory in shared memory, where low-latency frames are distributed to."""
    shared = Path("/dev/shm")  # noqa: S108 - a new directory in it
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as place:
        path.symlink_to(place)
        yield path
    path.unlink()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--hours", default=24.0, show_default=True, help="Strain, h.")
@click.option("--speed", default=60.0, show_default=True, help="Times real time.")
def main(folder: Path, hours: float, speed: float) -> None:
    """Soak the live search."""
    folder.mkdir(parents=True)
    length = round(hours * 3600)
    made = ("--duration", length, "--seed", 2, "--glitch-rate", 0.2)
    made += ("--gap-rate", 1, "--gap-length", 30)
    command = run("simulate", "background", folder / "live.hdf5", *made)
    subprocess.run(command, check=True)
    geometry = Geometry()
    segments = read_background(
        folder / "live.hdf5", "test", geometry.ifos, geometry.sample_rate
    )
    lengths = [int(one.duration) for one in segments]
    warmup = geometry.warmup_strides * geometry.stride_length
    livetime = sum(max(0.0, one - warmup) for one in lengths)
    newest = segments[-1].t0_ns // 10**9 + lengths[-1]
    ended = threading.Event()
    # As many candidates as there would be in months.
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
        asked = pool.submit(ask, api.url, ended)
        watch = Watch({system.triton.pid, api.pid, search.pid, writer.pid})
        done = waiting = 0.0
        try:
            while done < newest:
                if search.poll() is not None or writer.poll() not in {None, 0}:
                    raise SystemExit(f"a process ended; see {folder}")
                told = system.metrics()
                done = told.get(("chirpwatch_live_newest_gps_seconds",), 0.0)
                waiting = max(
                    waiting, told.get(("chirpwatch_live_waiting_results",), 0.0)
                )
                watch.look(max(0.0, done - START))
                print(f"\r{max(0.0, done - START) / 3600:.2f} h", end="", flush=True)
                time.sleep(SAMPLE)
            wall = time.monotonic() - begin
            told = system.metrics()
        finally:
            ended.set()
            system.end()
            writer.kill()
            writer.wait()
        with api.client() as client:
            found = [
                client.run(one.id)
                for one in client.runs().runs
                if one.id.startswith("live-")
            ]
    rows = watch.table(newest - START)
    answers = asked.result()
    result = {
        "strain_s": newest - START,
        "stretches": len(lengths),
        "speed": round((newest - START) / wall, 1),
        "runs": len(found),
        "livetime_expected_s": livetime,
        "livetime_s": sum(one.zero_lag.livetime for one in found),
        "events": sum(one.zero_lag.events for one in found),
        "candidates": told["chirpwatch_live_candidates_total",],
        "told": told.get(("chirpwatch_live_told_total", "told", "file"), 0.0),
        "server_failures": told["chirpwatch_live_server_failures_total",],
        "sequences": told["chirpwatch_live_sequences_total",],
        "waiting_results_highest": waiting,
        "answers": len(answers),
        "answer_p99_ms": round(1000 * float(np.quantile(answers, 0.99)), 1),
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
    whole = (
        result["livetime_s"] == livetime
        and result["candidates"] == result["told"]
        and result["sequences"] == len(lengths)
    )
    if not whole or not all(row["flat"] for row in rows):
        raise SystemExit("something grew, or was lost")


if __name__ == "__main__":
    main()
