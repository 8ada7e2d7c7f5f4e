"""Unit tests of the live search's parts."""

import hashlib
import hmac
import json
import os
import struct
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ligo.gracedb import rest as gracedb

from chirpwatch.clustering import cluster_strides, find_events
from chirpwatch.errors import (
    ConfigurationError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.process import free_ports
from chirpwatch.score_times import merger_ns
from chirpwatch.strain import resample
from chirpwatch.streamer.live import frames
from chirpwatch.streamer.live.alerts import (
    AlertSender,
    GraceDb,
    JsonLines,
    NotReachedError,
    RefusedError,
    Webhook,
)
from chirpwatch.streamer.live.background import BackgroundCopy
from chirpwatch.streamer.live.channels import Channels
from chirpwatch.streamer.live.coincide import (
    MAX_LEAP,
    Assembler,
    CoincidentSecond,
    DetectorSecond,
    Gap,
    blocks,
)
from chirpwatch.streamer.live.decimate import Decimator
from chirpwatch.streamer.live.frame_writer import FrameWriter
from chirpwatch.streamer.live.frames import (
    FrameDirectory,
    FrameReader,
    _prepare,
    read_frame,
)
from chirpwatch.streamer.live.ledger import (
    Candidate,
    Ledger,
)
from chirpwatch.streamer.live.summary import Summary
from chirpwatch.streamer.live.triggers import SAME_NS, TriggerFinder
from tests.streamer.live.search import GPS, IFOS

CHANNELS = {
    ifo: Channels(f"{ifo}:GDS-CALIB_STRAIN", f"{ifo}:GDS-CALIB_STATE_VECTOR")
    for ifo in IFOS
}


def second(number=0):
    return DetectorSecond(np.full(4, float(number)), 0.0)


def told(assembler, now):
    return list(assembler.ready(now))


# Assembling the detectors' seconds


def test_blocks_hold_each_second_once_and_end_at_gaps_and_other_rates():
    def together(gps, rate):
        return CoincidentSecond(gps, (np.zeros(rate), np.zeros(rate)), 0.0)

    told = [together(GPS + number, 4) for number in range(5)]
    gap = Gap(GPS + 5, 2, "off")
    after = [together(GPS + 7, 4), together(GPS + 8, 8)]
    found = list(blocks([*told, gap, *after], 3))
    assert found == [told[:3], told[3:], gap, after[:1], after[1:]]
    assert list(blocks([], 3)) == []


def test_complete_seconds_are_released_in_order():
    assembler = Assembler(IFOS, 10)
    assembler.offer("H1", GPS + 1, second(), 0)
    assembler.offer("H1", GPS, second(), 0)
    assert told(assembler, 0) == []
    assembler.offer("L1", GPS, second(), 1)
    (first,) = told(assembler, 1)
    assert (first.gps, len(first.strain)) == (GPS, 2)
    assembler.offer("L1", GPS + 1, second(), 2)
    assert [one.gps for one in told(assembler, 2)] == [GPS + 1]
    assert assembler.counts == {"out_of_order": 1}


def test_a_missing_frame_is_a_gap_after_the_patience():
    assembler = Assembler(IFOS, 10, next=GPS)
    assembler.offer("H1", GPS, second(), 0)
    assembler.offer("H1", GPS + 1, second(), 1)
    assembler.offer("L1", GPS + 1, second(), 1)
    assert told(assembler, 9.9) == []
    gap, after = told(assembler, 10)
    assert gap == Gap(GPS, 1, "no frame file from L1")
    assert after.gps == GPS + 1
    # Now the frame is late; a repeated frame counts once.
    assembler.offer("L1", GPS, second(), 11)
    assembler.offer("H1", GPS + 2, second(), 11)
    assembler.offer("H1", GPS + 2, second(), 11)
    assert assembler.counts == {"late": 1, "twice": 1}


def test_seconds_without_any_frame_are_a_gap_only_once_data_resume():
    assembler = Assembler(IFOS, 10, next=GPS)
    assert told(assembler, 1000) == []
    for ifo in IFOS:
        assembler.offer(ifo, GPS + 500, second(), 1000)
    assert told(assembler, 1009) == []
    gap, after = told(assembler, 1010)
    assert gap == Gap(GPS, 500, "no frame file from H1, L1")
    assert after.gps == GPS + 500


def test_a_frame_from_the_future_does_not_make_a_gap():
    assembler = Assembler(IFOS, 10, next=GPS)
    assembler.offer("H1", GPS + MAX_LEAP + 1, second(), 0)
    assert told(assembler, 100) == []
    for ifo in IFOS:
        assembler.offer(ifo, GPS, second(), 200)
    assert [one.gps for one in told(assembler, 200)] == [GPS]
    # Also as its time approaches.
    for number in range(1, MAX_LEAP):
        assert told(assembler, 200 + number) == []
        for ifo in IFOS:
            assembler.offer(ifo, GPS + number, second(), 200 + number)
        assert len(told(assembler, 200 + number)) == 1


def test_a_second_with_a_detector_off_is_a_gap_with_its_reason():
    assembler = Assembler(IFOS, 10)
    assembler.offer("H1", GPS, DetectorSecond(None, 0.0, "off"), 0)
    assembler.offer("L1", GPS, second(), 0)
    assert told(assembler, 0) == [Gap(GPS, 1, "H1 off")]


@given(st.data())
def test_each_second_is_released_once_and_in_order(data):
    """With frames in any order, lost or repeated."""
    count = data.draw(st.integers(1, 12))
    offers = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(IFOS), st.integers(0, count - 1), st.integers(0, 5)
            ),
            max_size=40,
        )
    )
    assembler = Assembler(IFOS, 3, next=GPS)
    now, answers = 0.0, []
    came = {ifo: set() for ifo in IFOS}
    for ifo, number, wait in offers:
        now += wait
        answers += told(assembler, now)
        if assembler.next <= GPS + number:
            came[ifo].add(GPS + number)
        assembler.offer(ifo, GPS + number, second(number), now)
    for wait in range(100, 3000, 100):
        answers += told(assembler, now + wait)
    position = GPS
    for one in answers:
        assert one.gps == position
        if isinstance(one, CoincidentSecond):
            assert one.gps in came["H1"] & came["L1"]
            assert [part[0] for part in one.strain] == [one.gps - GPS] * 2
            position += 1
        else:
            inside = set(range(one.gps, one.gps + one.length))
            assert not inside & came["H1"] & came["L1"]
            position += one.length
    assert position == max(came["H1"] | came["L1"], default=GPS - 1) + 1


# Rates


@pytest.mark.parametrize("rate", [2048, 4096, 16384])
def test_live_strain_is_resampled_as_recorded_strain_is(rate):
    rng = np.random.default_rng(3)
    strain = 1e-21 * rng.standard_normal((2, 5 * rate))
    decimator = Decimator(2048, 256)
    parts = [
        decimator.push(list(strain[:, n * rate : (n + 1) * rate])) for n in range(5)
    ]
    # Whole strides that end at a fixed distance from the end of the input.
    assert [part.shape[1] for part in parts[1:]] == [2048] * 4
    assert parts[0].shape[1] % 256 == 0
    result = np.concatenate(parts, axis=1)
    for one, series in zip(result, strain, strict=True):
        expected = resample(series, rate, 2048, "H1")[decimator.skipped :]
        assert one == pytest.approx(expected[: one.size], abs=1e-27)


def test_a_rate_that_changes_or_does_not_fit_is_refused():
    decimator = Decimator(2048, 256)
    decimator.push([np.zeros(4096)] * 2)
    with pytest.raises(StrainError, match="expected strain of 4096 Hz"):
        decimator.push([np.zeros(16384)] * 2)
    with pytest.raises(StrainError, match="found 4096, 16384 Hz"):
        Decimator(2048, 256).push([np.zeros(4096), np.zeros(16384)])
    for rate in (1024, 3000):
        with pytest.raises(StrainError, match="a multiple of 2048 Hz"):
            Decimator(2048, 256).push([np.zeros(rate)] * 2)


# Candidates


def triggers(score, delay, size=None, threshold=5.0):
    """Triggers of scores that arrive in pieces of ``size`` strides."""
    size = size or len(score)
    finder = TriggerFinder(Geometry(), 1.25, GPS * 10**9)
    found = []
    for first in range(0, len(score), size):
        part = slice(first, first + size)
        valid = np.ones(len(score[part]), bool)
        found += finder.push(first, score[part], delay[part], valid, threshold)
    return found + list(finder.flush(GPS * 10**9 + len(score) * 125_000_000))


def test_a_signal_is_one_candidate_once_its_kernel_has_passed():
    score, delay = np.zeros(80), np.full(80, 1.0)
    # A merger at 2 s: kernels that contain it score it, loudest in the middle.
    for stride, value in zip(range(19, 28), (6, 7, 8, 9, 8, 9, 8, 7, 6), strict=True):
        score[stride], delay[stride] = value, (stride + 1) / 8 - 2.0
    for size in (1, 3, 8, 80):
        (one,) = triggers(score, delay, size)
        assert one.statistic == 9
        assert one.time_ns == (GPS + 2) * 10**9
        # Decided after the longest delay, without a further stride.
        assert one.decided_ns == GPS * 10**9 + 3_250_000_000
    # A trigger that is not decided yet is sent at the end.
    (one,) = triggers(score[:24], delay[:24])
    assert one.time_ns == (GPS + 2) * 10**9
    # A later signal is another candidate.
    score[60], delay[60] = 7.0, 1.0
    assert [one.statistic for one in triggers(score, delay, 8)] == [9, 7]


@given(st.integers(0, 2**32 - 1), st.integers(1, 500), st.integers(1, 50))
def test_every_loud_event_is_a_trigger_unless_just_after_a_quieter_one(
    seed, count, size
):
    """The online rule against the definition, with ties and any delays."""
    geometry, threshold = Geometry(), 5.0
    rng = np.random.default_rng(seed)
    loud = rng.random(count) < rng.choice([0.02, 0.1, 1])
    score = np.where(loud, rng.integers(10, size=count), 0).astype(np.float32)
    delay = rng.integers(11, size=count).astype(np.float32) / 8
    found = triggers(score, delay, size, threshold)
    assert all(one.statistic >= threshold for one in found)
    events = find_events(score, cluster_strides(geometry)) & (score >= threshold)
    strides = np.flatnonzero(events)
    times = merger_ns(GPS * 10**9, geometry.stride_ns, strides, delay[strides])
    for stride, time_ns in zip(strides, times, strict=True):
        # A quieter trigger that was decided shortly before may replace the event.
        assert (score[stride], time_ns) in {
            (one.statistic, one.time_ns) for one in found
        } or any(
            -SAME_NS <= one.time_ns - time_ns <= 1_250_000_000
            and one.statistic < score[stride]
            for one in found
        )


def test_a_signal_leaving_the_kernel_is_not_another_candidate():
    def found(*statistics):
        score, delay = np.zeros(120), np.full(120, 1.0)
        # 1 s apart, within the length of a kernel and its filter.
        score[24], score[32] = statistics
        # Much later.
        score[60] = 6.0
        return [one.statistic for one in triggers(score, delay, 8)]

    assert found(9.0, 8.0) == [9, 6]
    assert found(8.0, 9.0) == [8, 9, 6]


def test_scores_that_stay_loud_give_repeated_triggers():
    score, delay = np.full(400, 6.0), np.full(400, 1.0)
    times = [one.time_ns for one in triggers(score, delay, 8)]
    assert 15 < len(times) < 400 / 5
    assert np.diff(times).min() > 0.5e9


def candidate(after=0.0, run="run"):
    time_ns = GPS * 10**9 + round(after * 1e9)
    return Candidate(
        id=f"{run}-{time_ns}",
        run=run,
        time_ns=time_ns,
        statistic=9.0,
        far_per_year=1.5,
        saturated=False,
        background_run="background",
        background_livetime=1e6,
        model="0" * 16,
        ifos=IFOS,
        simulated=True,
    )


def test_a_candidate_found_again_is_the_same(tmp_path):
    path = tmp_path / "candidates.db"
    with Ledger(path, ("file",)) as ledger:
        assert ledger.add(candidate())
        assert not ledger.add(candidate(0.0625, "another-run"))
        assert ledger.add(candidate(3.0))
    with Ledger(path, ("file",)) as ledger:
        assert not ledger.add(candidate(-0.0625))
        assert [one["time"] for _, one in ledger.waiting("file")] == [GPS, GPS + 3]


def test_an_alert_in_flight_when_the_process_ended_is_not_resent(tmp_path):
    path = tmp_path / "candidates.db"
    with Ledger(path, ("file", "webhook")) as ledger:
        ledger.add(candidate())
        ((number, _),) = ledger.waiting("webhook")
        ledger.mark(number, "webhook", "sending")
    with Ledger(path, ("file", "webhook")) as ledger:
        assert list(ledger.waiting("webhook")) == []
        assert len(list(ledger.waiting("file"))) == 1
        assert set(ledger.states()) == {
            ("file", "waiting", 1),
            ("webhook", "unknown", 1),
        }


class Receiver:
    """HTTP server that answers as configured, and records its requests."""

    def __init__(self, statuses=()):
        receiver = self
        self.statuses, self.got = list(statuses), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body, self.path))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *arguments):
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize(
    ("statuses", "state", "times"),
    [
        ([], "told", 1),
        # Refused for now: sent again.
        ([503, 429], "told", 3),
        # Unknown whether it was received: not sent again.
        ([500], "unknown", 1),
        ([404], "refused", 1),
    ],
)
def test_a_webhook_gets_a_signed_request_once(
    tmp_path, monkeypatch, statuses, state, times
):
    monkeypatch.setattr("chirpwatch.streamer.live.alerts.FIRST_PAUSE", 0.01)
    secret = b"between us"
    with (
        Receiver(statuses) as receiver,
        Ledger(tmp_path / "candidates.db", ("webhook",)) as ledger,
    ):
        ledger.add(candidate())
        outcomes = Counter()
        teller = AlertSender(
            Webhook(receiver.url, secret),
            ledger,
            lambda outcome, length: outcomes.update([outcome]),
        )
        teller.start()
        until = threading.Event()
        for _ in range(500):
            if ledger.states() == [("webhook", state, 1)]:
                break
            until.wait(0.01)
        teller.end()
        assert ledger.states() == [("webhook", state, 1)]
        assert len(receiver.got) == times
        assert outcomes[state] == 1
        assert outcomes["not_reached"] == times - 1
    for headers, body, path in receiver.got:
        assert path == "/hook"
        assert json.loads(body) == candidate().as_json()
        digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
        assert headers["X-Chirpwatch-Signature"] == f"sha256={digest}"
        assert headers["Idempotency-Key"] == candidate().id


def test_an_unreachable_webhook_is_reported_as_not_reached():
    (port,) = free_ports(1)
    hook = Webhook(f"http://127.0.0.1:{port}/", None)
    with pytest.raises(NotReachedError):
        hook.send(candidate().as_json())
    with pytest.raises(ConfigurationError, match="http://"):
        Webhook("ftp://somewhere", None)


def test_gracedb_gets_the_same_upload_as_from_its_own_client():
    """Against a local server that answers as GraceDB's API does."""

    class Api(Receiver):
        def __init__(self, status):
            super().__init__()
            api = self

            class Handler(BaseHTTPRequestHandler):
                def answer(self, status, body):
                    data = json.dumps(body).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

                def do_GET(self):
                    self.answer(
                        200,
                        {
                            "links": {"events": f"{api.url}events/"},
                            "groups": ["Test"],
                            "pipelines": ["aframe"],
                            "searches": ["AllSky"],
                            "templates": {},
                            "allowed_labels": [],
                        },
                    )

                def do_POST(self):
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                    api.got.append((dict(self.headers), body, self.path))
                    self.answer(status, {"graceid": "T0001"})

                def log_message(self, *arguments):
                    pass

            self.server.RequestHandlerClass = Handler
            self.url = self.url.replace("/hook", "/api/")

    for status, error in ((201, None), (400, RefusedError), (503, NotReachedError)):
        with Api(status) as api:
            sink = GraceDb(
                api.url,
                "Test",
                "aframe",
                lambda url: gracedb.GraceDb(
                    service_url=url, fail_if_noauth=False, force_noauth=True, retries=0
                ),
            )
            if error is None:
                sink.send(candidate().as_json())
            else:
                with pytest.raises(error):
                    sink.send(candidate().as_json())
            ((_, body, path),) = api.got
            assert path == "/api/events/"
            assert json.dumps(candidate().as_json()).encode() in body
            assert b"Test" in body
            assert b"aframe" in body


def test_a_file_gets_complete_lines_only(tmp_path, monkeypatch):
    path = tmp_path / "new" / "candidates.jsonl"
    sink = JsonLines(path)
    sink.send(candidate().as_json())

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(NotReachedError, match="space"):
        patch.setattr("os.fsync", full)
        sink.send(candidate(3).as_json())
    sink.send(candidate(3).as_json())
    times = [json.loads(line)["time"] for line in path.read_text().splitlines()]
    assert times == [GPS, GPS + 3]


# Frames


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return FrameWriter(tmp_path_factory.mktemp("frames"))


def test_a_frame_is_read_as_it_was_written(writer):
    strain = 1e-21 * np.random.default_rng(1).standard_normal(16384)
    path = writer.write("H1", GPS, strain)
    assert path.name == f"H-H1_llhoft-{GPS}-1.gwf"
    frame = read_frame(path, GPS, 1, CHANNELS["H1"])
    assert (frame.gps, frame.rate, frame.on.tolist()) == (GPS, 16384, [True])
    assert np.array_equal(frame.strain[0], strain)
    off = read_frame(
        writer.write("H1", GPS + 1, strain, False), GPS + 1, 1, CHANNELS["H1"]
    )
    assert off.on.tolist() == [False]
    # Only the named bits of the state vector count; without one, all data are on.
    for change, on in (({"bits": (2,)}, False), ({"state": None}, True)):
        channels = replace(CHANNELS["H1"], **change)
        assert read_frame(path, GPS, 1, channels).on.tolist() == [on]
    with pytest.raises(StrainError, match=f"expected 1 s from GPS {GPS + 5}"):
        read_frame(path, GPS + 5, 1, CHANNELS["H1"])


def test_a_directory_lists_new_and_rewritten_files(tmp_path):
    directory = FrameDirectory(tmp_path / "H1", "H1")
    assert list(directory.new()) == []
    (tmp_path / "H1").mkdir()
    for gps in (GPS + 1, GPS):
        (tmp_path / "H1" / f"H-H1_llhoft-{gps}-1.gwf").write_bytes(b"one")
    for other in (f".H-H1_llhoft-{GPS}-1.gwf.tmp", "notes.txt", "H-H1_llhoft-12-1.gwf"):
        (tmp_path / "H1" / other).write_bytes(b"")
    found = [(file.gps, file.length, again) for file, again in directory.new()]
    assert found == [(GPS, 1, False), (GPS + 1, 1, False)]
    assert list(directory.new()) == []
    (tmp_path / "H1" / f"H-H1_llhoft-{GPS}-1.gwf").write_bytes(b"another")
    assert [(file.gps, again) for file, again in directory.new()] == [(GPS, True)]


def test_a_damaged_frame_does_not_end_the_search(writer, tmp_path):
    """Frames truncated, or with wrong bytes, at any place."""
    strain = 1e-21 * np.random.default_rng(1).standard_normal(4096)
    whole = writer.write("L1", GPS, strain).read_bytes()
    rng = np.random.default_rng(2)
    damaged = [whole[: rng.integers(len(whole))] for _ in range(10)]
    for _ in range(20):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=30):
            content[place] = rng.integers(256)
        damaged.append(bytes(content))
    directory = FrameDirectory(tmp_path, "L1")
    refused = 0
    with FrameReader(1) as reader:
        for content in damaged:
            path = tmp_path / f"L-L1_llhoft-{GPS}-1.gwf"
            path.write_bytes(content)
            ((file, _),) = directory.new()
            path.unlink()
            path.write_bytes(content)
            list(directory.new())
            try:
                reader.result(reader.submit(file, CHANNELS["L1"]))
            except StrainError:
                refused += 1
            path.unlink()
            list(directory.new())
        assert refused == len(damaged)
        # The next frame is read.
        path.write_bytes(whole)
        ((file, _),) = directory.new()
        frame = reader.result(reader.submit(file, CHANNELS["L1"]))
        assert np.array_equal(frame.strain[0], strain)


def prepare_slowly(parent):
    """Prepare a reader as slowly as on a busy machine."""
    _prepare(parent)
    time.sleep(2)


@pytest.mark.parametrize("once_more", [False, True], ids=["once", "as it starts too"])
def test_a_killed_reader_may_restart_slowly(tmp_path, monkeypatch, once_more):
    """The restart does not count for a frame's time-out; none would be read."""
    monkeypatch.setattr(frames, "_prepare", prepare_slowly)
    monkeypatch.setattr(frames, "READ_TIMEOUT", 1.5)
    FrameWriter(tmp_path).write("L1", GPS, np.arange(4096.0))
    ((file, _),) = FrameDirectory(tmp_path / "L1", "L1").new()

    def kill_one():
        (process,) = reader._pool._processes.values()
        process.kill()
        return process

    with FrameReader(1) as reader:
        kill_one().join()
        reading = reader.submit(file, CHANNELS["L1"])
        if once_more:
            threading.Timer(0.5, kill_one).start()
        frame = reader.result(reading)
    assert np.array_equal(frame.strain[0], np.arange(4096.0))


def test_reading_a_frame_leaks_no_memory(writer):
    """A search reads millions of frames."""
    from gwpy.io.pelican import is_pelican_url

    path = writer.write("L1", GPS, np.arange(4096.0))
    before = is_pelican_url.cache_info().currsize
    read_frame(path, GPS, 1, CHANNELS["L1"])
    assert is_pelican_url.cache_info().currsize == before


def test_a_reader_killed_while_sending_does_not_block_the_end():
    """Such a process leaves the length of its result in the pipe, and half of it."""
    with FrameReader(1) as reader:
        pool = reader._pool
        waits = pool._executor_manager_thread
        os.write(pool._result_queue._writer.fileno(), struct.pack("!i", 1000) + b"half")
        time.sleep(0.5)  # until the pool's thread has read the half
        assert waits.is_alive()
    waits.join(10)
    assert not waits.is_alive()


def test_a_summary_is_a_single_line_and_sent_once():
    summary = Summary()
    assert summary.update() is None
    summary.gap(Gap(GPS, 3, "no frame file from L1"))
    summary.failure(RuntimeError("the server\nsaid:\x07 " + "x" * 1000))
    summary.scored(0.02)
    update = summary.update()
    assert update is not None
    assert update.message is not None
    assert update.message.startswith(
        f"3 s lost in 1 gap, the last of 3 s from GPS {GPS}: no frame file from L1; "
        "Triton failed 1 time and was retried, the last: the server said: xxx"
    )
    assert update.latency_ms is not None
    assert update.latency_ms.p50 == 20
    assert summary.update() is None
    summary.gap(Gap(GPS + 9, 1, "H1 off"))
    assert "4 s lost in 2 gaps" in (summary.update() or update).message


def test_a_copy_of_the_background_is_kept_on_disk(tmp_path):
    noise = BackgroundCopy("noise", 1e6, np.arange(1.0, 51.0), -np.inf)
    path = tmp_path / "background.npz"
    assert BackgroundCopy.load(path, "model", "geometry") is None
    noise.save(path, "model", "geometry")
    kept = BackgroundCopy.load(path, "model", "geometry")
    assert kept is not None
    assert (kept.run, kept.livetime) == ("noise", 1e6)
    assert kept.far(30.5) == noise.far(30.5)
    # Another model's background is not used.
    assert BackgroundCopy.load(path, "other", "geometry") is None
    path.write_bytes(path.read_bytes()[:100])
    assert BackgroundCopy.load(path, "model", "geometry") is None
