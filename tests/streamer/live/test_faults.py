"""Faults during a live search, each of which may cost time only.

Triton, results service and command are real processes. They are killed, frozen, and
starved of disk, time and network while frames arrive. After each fault, every stride is
stored once with the score that it has offline, livetime is exact, and each signal has a
single candidate.
"""

import contextlib
import itertools
import os
import queue
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest
from tritonclient import grpc

from chirpwatch.api.client import ApiClient
from chirpwatch.api.process import ApiProcess
from chirpwatch.errors import (
    ApiError,
    ServerError,
)
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.client import (
    OpenSequence,
    ScoreClient,
)
from chirpwatch.streamer.live.frame_writer import FrameWriter
from tests.needs import missing
from tests.streamer.live.search import (
    BURSTS,
    GPS,
    IFOS,
    LENGTH,
    RATE,
    Search,
    check_candidates,
    check_scores,
    live_run,
    with_background,
    write,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPPED = """
import pathlib, sys, time
clock, right = pathlib.Path(sys.argv.pop(1)), time.time
time.time = lambda: right() + float(clock.read_text() or 0)
from chirpwatch.commands.cli import main
main()
"""
"""The command with a clock that can be stepped."""

SPEED = 5.0
"""Seconds of strain per second of wall-clock time."""

PATIENCE = ("--patience", "6")
"""On a busy machine, a reader restarts only seconds after it was killed or frozen, or
after a damaged frame ended it. The frame may be repaired meanwhile."""


class Servers:
    """Triton and the results service, restarted when they end, as compose does."""

    def __init__(self, repository, folder, database=None):
        self.repository, self.folder = repository, folder
        self.database = database or folder / "results.db"
        self.triton = TritonServer(repository)
        self.restarts, self.up = 0, False

    def __enter__(self):
        self.triton.__enter__()
        self.up = True
        self._api = ApiProcess(self.database, log=self.folder / "api.log").__enter__()
        self.url, self.token = self._api.url, self._api.token
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *arguments):
        self._ended.set()
        self._thread.join()
        self._api.stop()
        if self.up:
            self.triton.__exit__(None, None, None)

    @property
    def api_pid(self):
        return self._api.pid

    def client(self):
        return self._api.client()

    def _watch(self):
        while not self._ended.wait(0.1):
            with contextlib.suppress(ServerError):
                # A server that is killed while it starts is started again.
                self._keep_triton()
            with contextlib.suppress(ApiError):
                self._keep_api()

    def _keep_triton(self):
        if self.up:
            try:
                self.triton.check()
            except ServerError:
                self.up = False
                self.restarts += 1
                self.triton.__exit__(None, None, None)
        if not self.up:
            self.triton.__enter__()
            self.up = True

    def _keep_api(self):
        try:
            self._api.check()
        except ApiError:
            self.restarts += 1
            port = int(self.url.rpartition(":")[2])
            log = self.folder / "api.log"
            self._api = ApiProcess(self.database, port, log, self.token).__enter__()


@pytest.fixture
def servers(energy_repository, tmp_path):
    with Servers(energy_repository, tmp_path) as running:
        with running.client() as client:
            with_background(client, running.triton.address)
        yield running


@contextlib.contextmanager
def feeding(frames, data, speed=SPEED):
    """Write the strain as frames, at the clock's pace, in a thread."""
    stop = threading.Event()

    def feed():
        for second in range(LENGTH):
            write(frames, data, [second])
            if stop.wait(1 / speed):
                return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        if sys.exc_info()[0]:
            stop.set()
        thread.join()


def check_all(servers, search, data):
    """Check that nothing is lost or doubled, and check livetime and candidates."""
    search.wait_until(GPS + LENGTH, timeout=120)
    out = search.end()
    address = servers.triton.address
    with servers.client() as client:
        run = live_run(client)
        assert run.state == "complete"
        check_scores(client, run.id, address, data, [(0, LENGTH)])
    check_candidates(search.candidates())
    with sqlite3.connect(search.folder / "live" / "candidates.db") as ledger:
        states = ledger.execute("SELECT state, count(*) FROM told GROUP BY state")
        assert states.fetchall() == [("told", len(BURSTS))]
    return out


def readers_of(search):
    """The processes that read frames."""
    return [
        child.pid
        for child in psutil.Process(search.process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


def models_of(servers):
    return [child.pid for child in psutil.Process(servers.triton.pid).children()]


def test_every_process_killed_at_random(servers, strain, tmp_path):
    """Search, readers, Triton, its models' processes, results service: twenty times."""
    frames = tmp_path / "frames"
    dice = random.Random(3)
    search = Search(tmp_path, frames, servers.triton.address, servers, *PATIENCE)
    killed = []

    def kill():
        victim = dice.choice(["search", "reader", "triton", "model", "api"])
        with contextlib.suppress(ProcessLookupError, IndexError, psutil.Error):
            match victim:
                case "search":
                    search.process.kill()
                    search.process.wait()
                    search.__enter__()
                case "reader":
                    os.kill(dice.choice(readers_of(search)), signal.SIGKILL)
                case "triton":
                    os.kill(servers.triton.pid, signal.SIGKILL)
                case "model":
                    os.kill(dice.choice(models_of(servers)), signal.SIGKILL)
                case "api":
                    os.kill(servers.api_pid, signal.SIGKILL)
            killed.append(victim)

    with search:
        with feeding(frames, strain, speed=2.0):
            for _ in range(20):
                time.sleep(dice.uniform(0.5, 3.5))
                kill()
        check_all(servers, search, strain)
    print(f"killed: {', '.join(killed)}")
    assert set(killed) == {"search", "reader", "triton", "model", "api"}
    assert servers.restarts >= 3


@pytest.mark.parametrize("victim", ["search", "reader", "triton", "api"])
def test_a_frozen_process(servers, strain, tmp_path, victim):
    """A process is stopped for 8 s, with its files and connections open."""
    frames = tmp_path / "frames"
    with Search(tmp_path, frames, servers.triton.address, servers, *PATIENCE) as search:
        with feeding(frames, strain):
            search.wait_until(GPS + 30)
            match victim:
                case "search":
                    pids = [search.process.pid]
                case "reader":
                    pids = readers_of(search)
                case "triton":
                    pids = [servers.triton.pid, *models_of(servers)]
                case _:
                    pids = [servers.api_pid]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(8)
            for pid in pids:
                # The frozen reader was ended.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        check_all(servers, search, strain)


def test_a_slow_results_service(servers, strain, tmp_path):
    """The service gets a twentieth of the CPU time; candidates do not wait for it."""
    frames = tmp_path / "frames"
    ended = threading.Event()

    def slow_down():
        while not ended.is_set():
            os.kill(servers.api_pid, signal.SIGSTOP)
            time.sleep(0.95)
            os.kill(servers.api_pid, signal.SIGCONT)
            time.sleep(0.05)

    with Search(tmp_path, frames, servers.triton.address, servers, *PATIENCE) as search:
        with ThreadPoolExecutor(1) as pool, feeding(frames, strain):
            search.wait_until(GPS + 10)
            slow = pool.submit(slow_down)
            search.wait_until(GPS + LENGTH)
            metrics = search.metrics()
            ended.set()
            slow.result()
        check_all(servers, search, strain)
    (decided,) = [
        value
        for (name, *labels), value in metrics.items()
        if name == "chirpwatch_live_stage_seconds_bucket"
        and set(labels) == {"decided", "2.0"}
    ]
    assert decided == 3


@contextlib.contextmanager
def small_disk(folder, size):
    """A small file system."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        missing("only root may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder):
    """Fill the disk to the last byte."""
    path = folder / "filler"
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(file, bytes(1 << 12)):
            pass
    os.close(file)
    yield
    path.unlink()


@pytest.mark.parametrize("whose", ["search", "service"])
def test_a_full_disk(energy_repository, strain, tmp_path, whose):
    """The disk is full for 8 s while signals arrive; no file is left incomplete."""
    frames = tmp_path / "frames"
    with small_disk(tmp_path / "disk", "8m") as disk:
        database = disk / "results.db" if whose == "service" else None
        folder = disk if whose == "search" else tmp_path
        with Servers(energy_repository, tmp_path, database) as servers:
            with servers.client() as client:
                with_background(client, servers.triton.address)
            address = servers.triton.address
            with Search(folder, frames, address, servers, *PATIENCE) as search:
                with feeding(frames, strain):
                    search.wait_until(GPS + 25)
                    with filled(disk):
                        time.sleep(8)
                out = check_all(servers, search, strain)
    assert whose == "service" or "the disk is full, waiting for space" in out


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_stepped_clock(servers, strain, tmp_path, step):
    """The search's clock steps by an hour in the middle.

    A clock cannot be stepped for a single process, so `time.time` is replaced.
    """
    frames, clock = tmp_path / "frames", tmp_path / "clock"
    clock.write_text("0")
    search = Search(tmp_path, frames, servers.triton.address, servers, *PATIENCE)
    search.command[1:3] = "-c", STEPPED, clock
    with search:
        with feeding(frames, strain):
            search.wait_until(GPS + 40)
            clock.write_text(str(step))
        check_all(servers, search, strain)


@contextlib.contextmanager
def network():
    """Network namespace; yields its name, address, and a switch for its link."""
    name, here, there = (f"cw{os.getpid() % 100_000}{end}" for end in "nht")
    address = "10.213.77.2"

    def ip(*arguments):
        return subprocess.run(["ip", *arguments], capture_output=True, text=True)

    if os.geteuid() != 0 or ip("netns", "add", name).returncode:
        missing("only root may make a network")
    try:
        cable = ip("link", "add", here, "type", "veth", "peer", there, "netns", name)
        if cable.returncode:
            missing(f"no cable: {cable.stderr}")
        ip("addr", "add", "10.213.77.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "addr", "add", f"{address}/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, address, lambda state: ip("-n", name, "link", "set", there, state)
    finally:
        ip("netns", "del", name)


def test_a_cut_network(energy_repository, strain, tmp_path):
    """Triton and results service are in another network, cut off for 15 s.

    Connections are not refused then; packets are lost.
    """
    frames = tmp_path / "frames"
    token = "a-token-of-the-test"
    with network() as (name, address, switch), contextlib.ExitStack() as stack:
        commands = {
            "serve": ["serve", str(energy_repository), f"--host={address}"],
            "api": ["api", f"--host={address}", "--port=8080"],
        }
        commands["api"] += [f"--database={tmp_path / 'results.db'}"]
        for what, arguments in commands.items():
            process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", name),
                    *(sys.executable, "-m", "chirpwatch", *arguments),
                ],
                env=os.environ | {"CHIRPWATCH_API_TOKEN": token},
                stdout=(tmp_path / f"{what}.log").open("w"),
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)

        class There:
            url = f"http://{address}:8080"
            triton = f"{address}:8001"

        There.token = token
        until = time.monotonic() + 60
        for url in (f"http://{address}:8000/v2/health/ready", f"{There.url}/healthz"):
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(url, trust_env=False, timeout=1).status_code == 200:
                        break
                time.sleep(0.1)
        with Search(tmp_path, frames, There.triton, There, *PATIENCE) as search:
            with feeding(frames, strain):
                search.wait_until(GPS + 30)
                switch("down")
                time.sleep(15)
                switch("up")
            search.wait_until(GPS + LENGTH, timeout=120)
            failures = search.metrics()["chirpwatch_live_server_failures_total",]
            search.end()
        with ApiClient(There.url, token) as client:
            run = live_run(client)
            check_scores(client, run.id, There.triton, strain, [(0, LENGTH)])
            message = run.message or ""
            assert message.startswith("Triton failed") == bool(failures), message


def test_damaged_frames(servers, strain, tmp_path):
    """A damaged frame makes a gap of its second, or none if it is repaired in time."""
    frames, aside = tmp_path / "frames", tmp_path / "aside"
    rng = np.random.default_rng(4)
    mended, lost = {22, 35, 44}, {26, 40, 55, 70}
    writer, away = FrameWriter(frames), FrameWriter(aside)
    address = servers.triton.address
    with Search(tmp_path, frames, address, servers, *PATIENCE) as search:
        for second in range(LENGTH):
            ifo = IFOS[second % 2]
            if second not in mended | lost:
                write(frames, strain, [second])
                continue
            write(frames, strain, [second], [one for one in IFOS if one != ifo])
            index = IFOS.index(ifo)
            part = strain[index, second * RATE : (second + 1) * RATE]
            whole = away.write(ifo, GPS + second, part).read_bytes()
            bad = bytearray(whole)
            for place in rng.integers(len(bad), size=3):
                bad[place] ^= 1 << int(rng.integers(8))
            path = writer.path(ifo, GPS + second)
            path.write_bytes(bytes(bad[: len(bad) - second % 3 * 1000]))
            if second in mended:
                time.sleep(0.5)
                path.write_bytes(whole)
            search.wait_until(GPS + second)
        search.wait_until(GPS + LENGTH)
        metrics = search.metrics()
        search.end()
    edges = [0, *sorted(lost), LENGTH]
    stretches = [
        (begin + (begin in lost), end) for begin, end in itertools.pairwise(edges)
    ]
    with servers.client() as client:
        run = live_run(client)
        check_scores(client, run.id, address, strain, stretches)
        # The status that the page shows.
        last = max(lost)
        assert run.message == (
            f"4 s lost in 4 gaps, the last of 1 s from GPS {GPS + last}: no frame "
            f"file from {IFOS[last % 2]}"
        )
        assert run.latency_ms.p50 > 0
    unreadable = sum(
        metrics.get(("chirpwatch_live_frames_total", ifo, "unreadable"), 0)
        for ifo in IFOS
    )
    assert unreadable >= len(lost)
    assert metrics["chirpwatch_live_seconds_total", "gap"] == len(lost)


def test_two_thousand_sequences_at_once(energy_server, strain):
    """Each sequence gets the scores that it gets alone.

    They share a connection: a connection for each would take threads of this process,
    not of the server.
    """
    count, strides, step = 2000, 80, 40
    detector = ScoreClient(energy_server.address)
    size = detector.geometry.stride_size
    pieces = [
        strain[None, :, 61 * number :][..., : strides * size].astype(np.float32)
        for number in range(count)
    ]
    answers = queue.SimpleQueue()
    client = grpc.InferenceServerClient(energy_server.address)
    client.start_stream(lambda result, error: answers.put((result, error)))
    found = np.full((count, strides), np.nan)
    for begin in range(0, strides, step):
        for number, piece in enumerate(pieces):
            part = np.ascontiguousarray(piece[..., begin * size :][..., : step * size])
            position = np.array([begin * size] * 2)
            inputs = [
                grpc.InferInput("strain", list(part.shape), "FP32"),
                grpc.InferInput("position", [2], "INT64"),
            ]
            inputs[0].set_data_from_numpy(part)
            inputs[1].set_data_from_numpy(position)
            client.async_stream_infer(
                "detector",
                inputs,
                request_id=str(number),
                sequence_id=number + 1,
                sequence_start=begin == 0,
                sequence_end=begin + step == strides,
            )
        for _ in range(count):
            result, error = answers.get(timeout=60)
            assert error is None, error
            number = int(result.get_response().id)
            found[number, begin : begin + step] = result.as_numpy("score")[0]
    client.stop_stream()
    client.close()
    assert np.isfinite(found).all()
    for number in (0, 1234, count - 1):
        with OpenSequence(detector, (0, 0)) as alone:
            alone.send(pieces[number], 0, strides, end=True)
            scores = alone.receive()
        # The first scores have no PSD yet, and are not valid.
        assert np.count_nonzero(scores.valid) == strides - 63
        assert np.array_equal(scores.score[0, 63:], found[number, 63:])
    assert len(np.unique(found[:, 63:], axis=0)) == count
