"""``chirpwatch live`` with a real Triton, a real service, and frames in a directory."""

import os
import signal
import time

import numpy as np
import pytest

from chirpwatch.api.process import ApiProcess
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.live.frame_writer import FrameWriter
from chirpwatch.units import JULIAN_YEAR
from tests.streamer.live.search import (
    GPS,
    LENGTH,
    RATE,
    Search,
    check_candidates,
    check_scores,
    live_run,
    with_background,
    write,
)


@pytest.fixture
def api(tmp_path):
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as process:
        yield process


def test_scores_and_candidates_are_those_of_the_strain(
    energy_server, api, strain, tmp_path
):
    frames = tmp_path / "frames"
    with api.client() as client:
        with_background(client, energy_server.address)
        with Search(tmp_path, frames, energy_server.address, api) as search:
            write(frames, strain, range(LENGTH))
            search.wait_until(GPS + LENGTH)
            found = search.candidates()
            metrics = search.metrics()
            search.end()
        run = live_run(client)
        assert (run.state, run.background_run) == ("complete", "noise")
        check_scores(client, run.id, energy_server.address, strain, [(0, LENGTH)])
        events = client.candidates(run.id).candidates
        # Each candidate has its strain, at its time.
        for one in found:
            white = client.whitened(run.id, one["time_ns"])
            series = np.abs(white.strain["H1"])
            assert series.argmax() / RATE + white.start == pytest.approx(0, abs=1 / 16)
    check_candidates(found)
    assert metrics["chirpwatch_live_candidates_total",] == 3
    assert metrics["chirpwatch_live_sequences_total",] == 1
    assert metrics["chirpwatch_live_told_total", "told", "file"] == 3
    # Triggers that are sent at once are the events that are decided later.
    assert {one["time_ns"] for one in found} <= {one.time_ns for one in events}
    for one in found:
        assert one["background_run"] == "noise"
        assert one["far_per_year"] == pytest.approx(1 / (30 * 2**20 / JULIAN_YEAR))
        assert one["saturated"]


def test_missing_late_and_invalid_frames_are_counted_gaps(
    energy_server, api, strain, tmp_path
):
    frames = tmp_path / "frames"
    with (
        api.client() as client,
        Search(tmp_path, frames, energy_server.address, api) as search,
    ):
        write(frames, strain, range(20))
        # Frames out of order, and one detector after the other: no gap.
        search.wait_until(GPS + 20)
        write(frames, strain, [21], ["H1"])
        time.sleep(0.3)
        write(frames, strain, [20], ["H1"])
        write(frames, strain, [20, 21], ["L1"])
        # A truncated frame, complete a little later: no gap.
        part = FrameWriter(tmp_path / "aside")
        whole = part.write("L1", GPS + 22, strain[1, 22 * RATE : 23 * RATE])
        path = FrameWriter(frames).path("L1", GPS + 22)
        path.write_bytes(whole.read_bytes()[:5000])
        write(frames, strain, [22], ["H1"])
        time.sleep(0.3)
        path.write_bytes(whole.read_bytes())
        search.wait_until(GPS + 23)
        # A repeated frame: the first counts.
        write(frames, strain[:, ::-1], [10])
        # A missing frame.
        write(frames, strain, [23], ["H1"])
        write(frames, strain, range(24, 50))
        search.wait_until(GPS + 50)
        # A late frame.
        write(frames, strain, [23], ["L1"])
        # Detector off, strain not finite, strain constant.
        off = FrameWriter(frames)
        off.write("H1", GPS + 50, strain[0, 50 * RATE : 51 * RATE], on=False)
        write(frames, strain, [50], ["L1"])
        bad = strain.copy()
        bad[1, 51 * RATE + 7] = np.nan
        bad[0, 52 * RATE : 53 * RATE] = 0
        write(frames, bad, [51, 52])
        write(frames, strain, range(53, 80))
        search.wait_until(GPS + 80)
        metrics = search.metrics()
        out = search.end()
        run = live_run(client)
        stretches = [(0, 23), (24, 50), (53, 80)]
        check_scores(client, run.id, energy_server.address, strain, stretches)

    def frame(ifo, what):
        return metrics.get(("chirpwatch_live_frames_total", ifo, what), 0)

    assert frame("H1", "out_of_order") == 1
    assert frame("L1", "unreadable") >= 1
    assert (frame("H1", "twice"), frame("L1", "twice")) == (1, 1)
    assert frame("L1", "late") == 1
    assert frame("H1", "off") == 1
    assert frame("L1", "not_finite") == 1
    assert frame("H1", "stands_still") == 1
    assert metrics["chirpwatch_live_seconds_total", "gap"] == 4
    assert metrics["chirpwatch_live_seconds_total", "analysed"] == 76
    assert metrics["chirpwatch_live_sequences_total",] == 3
    assert f"gap of 1 s from GPS {GPS + 23}: no frame file from L1" in out
    assert f"gap of 1 s from GPS {GPS + 50}: H1 off" in out
    assert out.count(" INFO live: stretch begins at GPS ") == 3
    assert f"WARNING live: L-L1_llhoft-{GPS + 22}-1.gwf: cannot be read" in out
    progress = ", lost: 4 s, gaps: 4, candidates: 0, waiting results: "
    assert "INFO live: 76 s analysed (latency " in out and progress in out


def test_a_killed_search_resumes_with_nothing_lost_or_doubled(
    energy_server, api, strain, tmp_path
):
    frames = tmp_path / "frames"
    search = Search(tmp_path, frames, energy_server.address, api)
    with api.client() as client:
        with_background(client, energy_server.address)
        # While the kernel holds a burst; test_faults kills at random times.
        stop = 48
        with search:
            write(frames, strain, range(stop))
            search.wait_until(GPS + stop)
            search.process.send_signal(signal.SIGKILL)
            search.process.wait()
        with search:
            write(frames, strain, range(stop, LENGTH))
            search.wait_until(GPS + LENGTH)
            search.end()
        run = live_run(client)
        check_scores(client, run.id, energy_server.address, strain, [(0, LENGTH)])
    check_candidates(search.candidates())


@pytest.mark.slow
def test_servers_that_restart_cost_nothing(energy_repository, api, strain, tmp_path):
    """Triton is killed in the middle of a sequence, and the results service with it."""
    frames = tmp_path / "frames"
    with TritonServer(energy_repository) as server:
        address = server.address
        with Search(tmp_path, frames, address, api) as search:
            write(frames, strain, range(40))
            search.wait_until(GPS + 40)
            os.kill(api.pid, signal.SIGKILL)
            port = int(api.url.rpartition(":")[2])
            api.stop()
            server.__exit__(None, None, None)
            write(frames, strain, range(40, 45))
            time.sleep(1)
            server.__enter__()
            assert server.address == address
            search.wait_until(GPS + 45)
            write(frames, strain, range(45, LENGTH))
            search.wait_until(GPS + LENGTH)
            metrics = search.metrics()
            log = tmp_path / "api.log"
            with ApiProcess(tmp_path / "results.db", port, log, api.token) as again:
                search.end()
                with again.client() as client:
                    run = live_run(client)
                    check_scores(client, run.id, address, strain, [(0, LENGTH)])
    assert metrics["chirpwatch_live_server_failures_total",] >= 1
    assert metrics["chirpwatch_live_sequences_total",] == 1


def test_another_model_starts_a_new_run_where_the_first_ended(
    energy_repository, repository, api, strain, tmp_path
):
    frames = tmp_path / "frames"
    with TritonServer(energy_repository) as server:
        address = server.address
        port = int(address.rpartition(":")[2])
        with (
            api.client() as client,
            Search(tmp_path, frames, address, api) as search,
        ):
            write(frames, strain, range(50))
            search.wait_until(GPS + 50)
            # On SIGTERM it would wait 10 s for the search's sequence.
            os.kill(server.pid, signal.SIGKILL)
            server.__exit__(None, None, None)
            with TritonServer(repository, grpc_port=port):
                write(frames, strain, range(50, LENGTH))
                search.wait_until(GPS + LENGTH)
                search.end()
            runs = [one for one in client.runs().runs if one.id.startswith("live-")]
            second, first = (client.run(one.id) for one in runs)
    assert first.model != second.model
    assert "results of two models do not mix" in first.message
    assert (first.state, second.state) == ("complete", "complete")
    # Together they have every stride, and none twice.
    livetime = first.zero_lag.livetime + second.zero_lag.livetime
    assert livetime == LENGTH - Geometry().warmup_strides / 8
    assert first.stop == second.start
