"""The results service as a real process with a real database, through HTTP."""

import json
import math
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import httpx
import numpy as np
import pytest
from astropy.time import Time
from pydantic import ValidationError

from chirpwatch.api.client import (
    ApiClient,
    ApiRefused,
    ApiUnavailable,
)
from chirpwatch.api.contract.injection_set import (
    Injection,
    InjectionSet,
)
from chirpwatch.api.contract.requests import (
    GeometryBody,
    LatencyMs,
    RunUpdate,
    Veto,
)
from chirpwatch.api.process import ApiProcess
from chirpwatch.api.storage.database import Database
from chirpwatch.api.web.guard import MAX_BODY_SIZE
from chirpwatch.errors import ApiError
from chirpwatch.geometry import Geometry
from chirpwatch.units import JULIAN_YEAR
from chirpwatch.volume import (
    sensitive_volume,
    volume_per_injection,
)
from tests.builders import (
    GPS,
    MODEL,
    POPULATION,
    RUN,
    SECOND,
    STRIDE,
    ZERO_LAG,
    block,
    chunk,
    drawn,
    injected,
    slide,
)


@pytest.fixture
def run(client, request):
    """Name of a run for this test only."""
    name = re.sub(r"\W+", "-", request.node.name)[-64:]
    client.put_run(name, RUN)
    return name


# Writing


def test_a_repeated_put_changes_nothing(client, run):
    injection = Injection(time_ns=GPS * SECOND, snr=9.0, parameters={"mass_1": 35.0})
    puts = [
        lambda: client.put_stream(run, "zl", ZERO_LAG),
        lambda: client.put_chunk(run, "zl", 0, chunk(0, [(3.0, 1.5)])),
        lambda: client.put_injections(run, "set", InjectionSet(injections=[injection])),
        lambda: client.put_block(run, 0, block(slide(4.0, [(9, 0.5, 1.0)]))),
    ]
    assert [put() for put in puts] == [True] * 4
    before = client.run(run)
    assert client.put_run(run, RUN) is False
    assert [put() for put in puts] == [False] * 4
    assert client.run(run) == before
    assert before.zero_lag.livetime == 8.0
    assert before.zero_lag.events == 1


def test_other_content_under_the_same_name_is_refused(client, run):
    client.put_stream(run, "zl", ZERO_LAG)
    client.put_chunk(run, "zl", 0, chunk(0))
    client.put_injections(run, "set", InjectionSet(injections=[]))
    client.put_block(run, 0, block(slide(4.0)))
    injection = Injection(time_ns=GPS * SECOND, snr=9.0, parameters={})
    before = client.run(run)
    for put in [
        lambda: client.put_run(run, RUN.model_copy(update={"model": "0" * 16})),
        lambda: client.put_run(run, RUN.model_copy(update={"simulated": False})),
        lambda: client.put_stream(run, "zl", injected("set")),
        lambda: client.put_block(run, 0, block(slide(5.0))),
        lambda: client.put_chunk(run, "zl", 0, chunk(0, [(3.0, 1.5)])),
        lambda: client.put_injections(run, "set", InjectionSet(injections=[injection])),
    ]:
        with pytest.raises(ApiRefused) as refused:
            put()
        assert refused.value.status == 409
        assert refused.value.kind == "urn:chirpwatch:conflict"
    assert client.run(run) == before


def test_chunks_come_in_any_order(client, run):
    client.put_stream(run, "zl", ZERO_LAG)
    client.put_chunk(run, "zl", 3, chunk(3, last=True))
    client.put_chunk(run, "zl", 0, chunk(0))
    (stream,) = client.streams(run)
    assert (stream.next_number, stream.done, stream.chunks) == (1, False, 2)
    client.put_chunk(run, "zl", 2, chunk(2))
    client.put_chunk(run, "zl", 1, chunk(1))
    (stream,) = client.streams(run)
    assert (stream.next_number, stream.done, stream.livetime) == (4, True, 32.0)
    with pytest.raises(ApiRefused, match="ended with chunk 3"):
        client.put_chunk(run, "zl", 4, chunk(4))


def test_livetime_counts_valid_strides(client, run):
    client.put_stream(run, "zl", ZERO_LAG)
    valid = [False] * 63 + [True]
    client.put_chunk(run, "zl", 0, chunk(0, valid=valid))
    client.put_chunk(run, "zl", 1, chunk(1, valid=[False] * 64))
    client.put_chunk(run, "zl", 2, chunk(2))
    status = client.run(run)
    assert status.zero_lag.livetime == 0.125 + 8.0
    assert status.zero_lag.analysed == 24.0
    assert status.zero_lag.planned == 4096.0
    assert (status.start, status.stop) == (GPS, GPS + 24.0)


def test_overlapping_time_counts_once_in_the_livetime(client, run):
    client.put_stream(run, "a", ZERO_LAG)
    client.put_chunk(run, "a", 0, chunk(0))
    with pytest.raises(ApiRefused, match="counted twice"):
        client.put_chunk(run, "a", 1, chunk(0))
    client.put_stream(run, "again", ZERO_LAG)
    with pytest.raises(ApiRefused, match="chunk 0 of stream 'a'"):
        client.put_chunk(run, "again", 0, chunk(0))
    assert client.put_chunk(run, "again", 0, chunk(1))
    assert client.run(run).zero_lag.livetime == 16.0


def test_progress_is_reported(client, run):
    latency = LatencyMs(p50=6.0, p90=7.0, p99=8.0, max=9.0)
    client.update_run(run, RunUpdate(throughput=180.0, latency_ms=latency))
    client.update_run(run, RunUpdate(state="failed", message="H1 ran dry"))
    status = client.run(run)
    assert (status.state, status.message) == ("failed", "H1 ran dry")
    assert (status.throughput, status.latency_ms) == (180.0, latency)
    everything = client.runs(limit=10_000)
    assert status.id in [run.id for run in everything.runs]
    assert everything.total == len(everything.runs)
    second = client.runs(limit=1, offset=1)
    assert (second.runs, second.total) == (everything.runs[1:2], everything.total)


def test_a_failed_run_may_resume(client, run):
    client.update_run(run, RunUpdate(state="failed", message="H1 ran dry"))
    client.put_run(run, RUN)
    client.update_run(run, RunUpdate(state="running"))
    status = client.run(run)
    assert (status.state, status.message) == ("running", None)


# Reading


def test_far_is_the_count_of_louder_background_plus_one(client, run):
    client.put_stream(run, "zl", ZERO_LAG)
    events = [(15, 0.0, 1.0), (47, 0.5, 5.0)]
    client.put_block(run, 0, block(slide(4.0, events), number=0))
    client.put_block(run, 1, block(slide(4.0, [(7, 0.0, 3.0)]), number=1))
    client.put_chunk(run, "zl", 0, chunk(0, [(1.0, 3.0), (4.0, 6.0)]))
    livetime = 16.0
    far = client.far(run, 3.0)
    assert (far.count, far.livetime, far.saturated) == (2, livetime, False)
    assert far.far_per_year == pytest.approx(3 * JULIAN_YEAR / livetime)
    assert far.model == MODEL
    answer = client.candidates(run)
    assert [c.statistic for c in answer.candidates] == [6.0, 3.0]
    assert [c.saturated for c in answer.candidates] == [True, False]
    assert answer.candidates[0].far_per_year == pytest.approx(JULIAN_YEAR / livetime)
    assert answer.candidates[0].time_ns == (GPS + 4) * SECOND
    for candidate in answer.candidates:
        chance = -math.expm1(-candidate.far_per_year * 8.0 / JULIAN_YEAR)
        assert candidate.false_alarm_probability == pytest.approx(chance)
        assert candidate.ifar_years == pytest.approx(1 / candidate.far_per_year)
    between = {"start_ns": GPS * SECOND, "stop_ns": (GPS + 3) * SECOND}
    early = client.candidates(run, **between)
    assert ([c.statistic for c in early.candidates], early.total) == ([3.0], 2)
    # The lowest FAR that the API reports can be requested.
    lowest = client.background(run).lowest_far_per_year
    assert client.injections(run, lowest).far_per_year == lowest
    curve = client.ifar(run)
    assert [p.count for p in curve.points] == [3, 2, 1, 0]
    assert [p.saturated for p in curve.points] == [False, False, False, True]
    assert curve.points[-1].ifar_years_high is None
    background = client.background(run)
    assert (background.events, background.slides[0].loudest) == (3, 5.0)
    assert (len(background.slides), background.slides[0].blocks) == (1, 2)
    events = client.events(run, "background")
    assert events.events[0].time_ns == GPS * SECOND + 48 * STRIDE - SECOND // 2
    assert events.events[0].stream == "0/0"
    assert [event.statistic for event in events.events] == [5.0, 3.0, 1.0]
    assert client.events(run, "background", limit=1, offset=1).events == [
        events.events[1]
    ]


def test_without_background_rates_are_refused(client, run):
    client.put_stream(run, "zl", ZERO_LAG)
    client.put_chunk(run, "zl", 0, chunk(0, [(4.0, 6.0)]))
    for ask in [
        lambda: client.far(run, 1.0),
        lambda: client.ifar(run),
        lambda: client.injections(run, 1.0),
    ]:
        with pytest.raises(ApiRefused, match="needs timeslides") as refused:
            ask()
        assert refused.value.kind == "urn:chirpwatch:insufficient-background"
    (candidate,) = client.candidates(run).candidates
    assert (candidate.far_per_year, candidate.saturated) == (None, True)
    assert client.background(run).lowest_far_per_year is None


def test_another_runs_background_is_never_used(client, run):
    other = run + "-other"
    client.put_run(other, RUN.model_copy(update={"model": "0" * 16}))
    client.put_block(other, 0, block(slide(4.0, [(31, 0.0, 6.0)])))
    with pytest.raises(ApiRefused, match="livetime"):
        client.far(run, 1.0)
    assert client.far(other, 1.0, model="0" * 16).model == "0" * 16
    with pytest.raises(ApiRefused, match="of another model says nothing") as refused:
        client.far(other, 1.0, model=MODEL)
    assert refused.value.status == 409


def test_a_run_may_use_another_runs_background_of_its_model(client, run):
    client.put_block(run, 0, block(slide(4.0, [(31, 0.0, 6.0)])))
    live = f"{run}-live"[-64:]
    client.put_run(live, RUN.model_copy(update={"background_run": run}))
    client.put_stream(live, "zl", ZERO_LAG)
    client.put_chunk(live, "zl", 0, chunk(0, [(4.0, 5.0)]))
    assert client.far(live, 5.0) == client.far(run, 5.0, observing_time=8.0)
    (candidate,) = client.candidates(live).candidates
    assert candidate.far_per_year == client.far(run, 5.0).far_per_year
    assert client.candidate(live, candidate.time_ns).count == 1
    assert client.ifar(live).points == client.ifar(run).points
    assert client.run(live).background.livetime == 0
    # New background changes the answer at once, despite the client's ETag.
    address = f"{client.url}/v1/runs/{live}/far?statistic=5"
    tag = httpx.get(address).headers["etag"]
    client.put_block(run, 1, block(slide(4.0, [(31, 0.0, 6.0)]), number=1))
    assert httpx.get(address, headers={"If-None-Match": tag}).json()["count"] == 2
    for body, what in [
        ({"background_run": "absent"}, "does not exist"),
        ({"background_run": live}, "with background of its own"),
        ({"background_run": run, "model": "0" * 16}, "of the same model"),
    ]:
        with pytest.raises(ApiRefused, match=what):
            client.put_run("another", RUN.model_copy(update=body))


def test_the_newest_events_are_compared_with_background(client, run):
    # One event per 16 s of background.
    events = [(70 + 128 * i, 0.5, float(i)) for i in range(8)]
    client.put_block(run, 0, block(slide(4.0, events, valid=[(0, 1024)])))
    client.put_stream(run, "zl", ZERO_LAG)
    assert client.drift(run).p_value == 1
    for number in range(40):
        times = [(8 * number + 0.5 + k, 9.0) for k in range(4 if number >= 30 else 0)]
        client.put_chunk(run, "zl", number, chunk(number, times))
    everything = client.drift(run)
    assert (everything.livetime, everything.events) == (320, 40)
    assert everything.stop - everything.start == 320
    last = client.drift(run, last=79.9)
    assert (last.livetime, last.events) == (80, 40)
    assert last.points[0].expected == pytest.approx(8 / 128 * 80)
    assert last.points[0].observed == 40
    assert last.p_value < 1e-4
    segment = [(GPS + 272) * SECOND, (GPS + 288) * SECOND]
    client.put_veto(run, "v", Veto(segments=[segment]))
    vetoed = client.drift(run, last=79.9)
    assert (vetoed.livetime, vetoed.events) == (64, 32)


def test_every_injection_is_found_or_missed(client, run):
    times = [(2.0, 5.0), (5.0, 9.0), (11.0, 20.0), (300.0, 40.0)]
    injections = [
        Injection(
            time_ns=GPS * SECOND + round(after * SECOND),
            snr=snr,
            parameters={"mass_1": 35.0},
        )
        for after, snr in times
    ]
    client.put_injections(run, "set", InjectionSet(injections=injections))
    client.put_stream(run, "inj", injected("set"))
    client.put_block(run, 0, block(slide(4.0, [(31, 0.0, 3.0)])))
    events = [(1.9, 2.0), (5.1, 8.0), (6.5, 9.0)]
    client.put_chunk(run, "inj", 0, chunk(0, events))
    client.put_chunk(run, "inj", 1, chunk(1))
    early = client.injections(run, JULIAN_YEAR / 8.0)
    # In an ongoing run, only times with complete events count.
    assert (early.total, early.pending) == (2, 2)
    client.update_run(run, RunUpdate(state="complete"))
    answer = client.injections(run, JULIAN_YEAR / 8.0)
    assert answer.pending == 0
    assert answer.threshold == math.nextafter(3.0, math.inf)
    assert answer.total == 4
    assert [found.snr for found in answer.found] == [9.0]
    assert answer.found[0].event.statistic == 8.0
    assert [(missed.snr, missed.reason) for missed in answer.missed] == [
        (5.0, "below_threshold"),
        (20.0, "no_event"),
        (40.0, "not_analysed"),
    ]
    assert answer.missed[0].parameters == {"mass_1": 35.0}
    start, stop = (round((GPS + after) * SECOND) for after in (4, 12))
    listed = client.injections(run, JULIAN_YEAR / 8.0, start_ns=start, stop_ns=stop)
    assert (len(listed.found), len(listed.missed), listed.total) == (1, 1, 4)
    assert sum(part.injections for part in answer.efficiency) == 4
    with pytest.raises(ApiRefused, match="reaches") as refused:
        client.injections(run, 1.0)
    assert refused.value.status == 409


def test_sensitive_volume_counts_what_was_too_faint(client, run):
    """Against the found injections' weights, summed one by one."""
    injections = [drawn(0, 2.0), drawn(1, 5.0), drawn(2, 11.0), drawn(3, 14.0)]
    body = InjectionSet(injections=injections, population=POPULATION)
    client.put_injections(run, "set", body)
    client.put_stream(run, "inj", injected("set"))
    client.put_block(run, 0, block(slide(4.0, [(31, 0.0, 3.0)])))
    client.put_chunk(run, "inj", 0, chunk(0, [(2.0, 2.0), (5.1, 8.0), (6.5, 9.0)]))
    client.put_chunk(run, "inj", 1, chunk(1, [(11.0, 4.0)], last=True))
    client.update_run(run, RunUpdate(state="complete"))
    rates = [client.far(run, 5.0).far_per_year, client.far(run, 1.0).far_per_year]
    answer = client.volume(run, rates)
    assert (answer.injections, answer.rejected, answer.draws) == (4, 90, 94)
    assert len(answer.volumes) == 8
    found = {rates[0]: [1, 2], rates[1]: [0, 1, 2]}
    for one in answer.volumes:
        # The first threshold is just above the background's event.
        chosen = [injections[i].parameters for i in found[one.far_per_year]]
        expected = sensitive_volume(
            POPULATION.population(),
            94,
            [p["mass_1"] for p in chosen],
            [p["mass_2"] for p in chosen],
            [p["redshift"] for p in chosen],
            (one.mass_1, one.mass_2),
        )
        assert one.volume == pytest.approx(expected.volume)
        assert one.volume_error == pytest.approx(expected.volume_error)
        assert one.found == expected.found
    by_mass = client.efficiency(run, rates[1], by="total_mass", bins=3)
    assert [part.injections for part in by_mass.bins] == [1, 1, 2]
    assert [part.found for part in by_mass.bins] == [1, 1, 1]
    assert by_mass.bins[0].low_edge == 90.0
    chirp = client.efficiency(run, rates[1], by="chirp_mass", bins=1).bins[0]
    assert chirp.low_edge == pytest.approx((50 * 40) ** 0.6 / 90**0.2)
    with pytest.raises(ApiRefused, match="distance"):
        client.efficiency(run, rates[1], by="distance")
    # Vetoed injections are neither found nor missed, and their draws do not count.
    segment = [GPS * SECOND + 13 * SECOND, GPS * SECOND + 15 * SECOND]
    client.put_veto(run, "v", Veto(segments=[segment]))
    assert client.volume(run, rates[1:]).draws == pytest.approx(3 * 94 / 4)


def test_a_volume_counts_injections_in_livetime_only(client, run):
    """Injections without valid scores at their time are excluded, as is the time."""
    injections = [drawn(i, 2.0 + 4 * i) for i in range(4)]
    body = InjectionSet(injections=injections, population=POPULATION)
    client.put_injections(run, "set", body)
    client.put_stream(run, "inj", injected("set"))
    client.put_block(run, 0, block(slide(4.0, [(31, 0.0, 3.0)])))
    events = [(2.0, 4.0), (6.0, 5.0)]
    client.put_chunk(run, "inj", 0, chunk(0, events))
    client.put_chunk(run, "inj", 1, chunk(1, valid=[False] * 64, last=True))
    client.update_run(run, RunUpdate(state="complete"))
    answer = client.volume(run, [client.far(run, 3.5).far_per_year])
    assert (answer.injections, answer.not_analysed, answer.draws) == (2, 2, 47)
    assert {one.found for one in answer.volumes} == {2}


def test_status_has_gaps_and_the_latency_of_live_data(client, run):
    client.put_stream(run, "zl", ZERO_LAG)
    valid = [True] * 64
    valid[10:18] = [False] * 8
    client.put_chunk(run, "zl", 0, chunk(0, valid=valid))
    status = client.run(run)
    assert (status.zero_lag.livetime, status.zero_lag.gaps) == (7.0, 1.0)
    # Recorded data have no latency.
    assert status.lag is None
    now = Time.now().gps
    live = f"{run}-live"[-64:]
    client.put_run(live, RUN)
    stream = ZERO_LAG.model_copy(update={"segment": f"{now - 40:.0f}-4096"})
    client.put_stream(live, "zl", stream)
    body = chunk(0).model_copy(
        update={"start_ns": round(now - 40) * SECOND, "events": []}
    )
    client.put_chunk(live, "zl", 0, body)
    newest = round(now - 40) + 63 / 8
    assert client.run(live).lag == pytest.approx(Time.now().gps - newest, abs=3)


def test_compared_runs_each_use_their_own_background(client, run):
    other = f"{run}-other"[-64:]
    client.put_run(other, RUN.model_copy(update={"model": "0" * 16}))
    for name, threshold in ((run, 3.0), (other, 8.5)):
        body = InjectionSet(injections=[drawn(0, 2.0), drawn(1, 5.0)])
        client.put_injections(name, "set", body)
        client.put_stream(name, "inj", injected("set"))
        client.put_stream(name, "zl", ZERO_LAG)
        events = [(2.0, 4.0), (5.1, 9.0)]
        client.put_chunk(name, "inj", 0, chunk(0, events, last=True))
        client.put_chunk(name, "zl", 0, chunk(0, [(3.0, 5.0)]))
        client.put_block(name, 0, block(slide(4.0, [(31, 0.0, threshold)])))
        client.update_run(name, RunUpdate(state="complete"))
    answer = client.compare([run, other], JULIAN_YEAR / 8)
    assert (answer.same_model, answer.same_geometry) == (False, True)
    assert [one.found for one in answer.runs] == [2, 1]
    assert [one.injections for one in answer.runs] == [2, 2]
    assert [one.loudest for one in answer.runs] == [5.0, 5.0]
    for one in answer.runs:
        alone = client.far(one.id, 5.0)
        assert one.loudest_far_per_year == alone.far_per_year
        assert one.background_livetime == alone.livetime
    beyond = client.compare([run], 1.0).runs[0]
    assert (beyond.reached, beyond.found, beyond.efficiency) == (False, None, [])
    with pytest.raises(ApiRefused, match="each run once"):
        client.compare([run, run])
    with pytest.raises(ApiRefused, match="nothing"):
        client.compare([run, "nothing"])


def test_p_astro_follows_from_the_rate_densities(client, run):
    """Against the true densities: uniform for signals, exponential for noise."""
    count, size = 200, 64
    injections = [drawn(0, 8 * i + 3.0, redshift=0.2) for i in range(count)]
    body = InjectionSet(injections=injections, population=POPULATION)
    client.put_injections(run, "set", body)
    client.put_stream(run, "inj", injected("set"))
    client.put_stream(run, "zl", ZERO_LAG)
    for i in range(count):
        event = [(8 * i + 3.0, 20.0 * i / count)]
        client.put_chunk(run, "inj", i, chunk(i, event, size=size))
    client.put_chunk(run, "zl", 0, chunk(0, [(3.0, 9.5), (6.0, 1.0)]))
    client.update_run(run, RunUpdate(state="complete"))
    noise = np.random.default_rng(1).exponential(size=900)
    events = [(70 + i, 0.5, float(np.float32(x))) for i, x in enumerate(noise)]
    client.put_block(run, 0, block(slide(4.0, events, valid=[(0, 1024)])))
    assert client.candidates(run).candidates[0].odds is None
    rate = 1e7
    loud, quiet = client.candidates(run, merger_rate=rate).candidates
    volumes = volume_per_injection(
        POPULATION.population(), count + 90, np.full(count, 0.2)
    )
    expected = rate * volumes.sum() / 1e9 / 20
    for one in (loud, quiet):
        assert one.odds.signals == pytest.approx(expected, rel=0.15)
    years = 128 / JULIAN_YEAR
    assert quiet.odds.noise == pytest.approx(900 / years * math.exp(-1.0), rel=0.2)
    assert quiet.odds.p_astro < loud.odds.p_astro
    assert (quiet.odds.limited, loud.odds.limited) == (False, True)
    with pytest.raises(ApiRefused, match="greater than 0"):
        client.candidates(run, merger_rate=0.0)


def test_a_volume_needs_the_injections_population(client, run):
    client.put_block(run, 0, block(slide(4.0, [(31, 0.0, 3.0)])))
    with pytest.raises(ApiRefused, match="found none") as refused:
        client.volume(run, [JULIAN_YEAR])
    assert refused.value.kind == "urn:chirpwatch:no-population"
    one = InjectionSet(injections=[drawn(0, 2.0)], population=POPULATION)
    client.put_injections(run, "one", one)
    other = POPULATION.model_copy(update={"max_redshift": 0.5})
    client.put_injections(
        run, "other", InjectionSet(injections=[drawn(1, 5.0)], population=other)
    )
    with pytest.raises(ApiRefused, match="expected one population, found 2"):
        client.volume(run, [JULIAN_YEAR])
    client.put_injections(run, "none", InjectionSet(injections=[]))
    with pytest.raises(ApiRefused, match="found 1 that do not"):
        client.volume(run, [JULIAN_YEAR])
    body = {"injections": [{"time_ns": 1, "snr": 1.0, "parameters": {"mass_1": 1.0}}]}
    with pytest.raises(ValidationError, match="missing mass_2, redshift"):
        InjectionSet(**body, population=POPULATION)
    for masses in ({"mass_1": 0.0, "mass_2": 0.0}, {"mass_1": 30.0, "mass_2": -30.0}):
        with pytest.raises(ValidationError, match="expected solar masses above 0"):
            Injection(time_ns=1, snr=1.0, parameters=masses)
    for redshift in (-1.0, 0.0, 1.1):
        with pytest.raises(ValidationError, match="expected a redshift above 0"):
            InjectionSet(
                injections=[drawn(0, 2.0, redshift=redshift)], population=POPULATION
            )


@pytest.mark.parametrize("points", [1, 7, 64, 10_000])
def test_thinned_scores_keep_every_peak(client, run, points):
    client.put_stream(run, "zl", ZERO_LAG)
    rng = np.random.default_rng(points)
    scores = rng.normal(size=(4, 512)).astype(np.float32)
    valid = rng.random((4, 512)) < 0.9
    for number in [2, 0, 3]:
        body = chunk(number, size=512, valid=valid[number].tolist())
        body = body.model_copy(update={"scores": scores[number].tolist()})
        client.put_chunk(run, "zl", number, body)
    answer = client.scores(run, stream="zl", points=points)
    assert len(answer.time) <= points + 1
    kept = valid[[0, 2, 3]]
    sent = scores[[0, 2, 3]][kept]
    assert max(v for v in answer.maximum if v is not None) == sent.max()
    assert min(v for v in answer.minimum if v is not None) == sent.min()
    if points == 10_000:
        assert [v for v in answer.maximum if v is not None] == sent.tolist()
        assert answer.time[0] == GPS + 0.125
    spans = [(part.start, part.stop) for part in answer.received]
    assert spans == [(GPS, GPS + 64), (GPS + 128, GPS + 256)]
    dead = sum(part.stop - part.start for part in answer.invalid)
    assert dead == pytest.approx(np.count_nonzero(~kept) / 8)
    peak = int(np.argmax(np.where(valid[2], scores[2], -np.inf)))
    edge = GPS * SECOND + (2 * 512 + peak + 1) * STRIDE
    zoom = client.scores(
        run, kind="zero_lag", start_ns=edge - STRIDE, stop_ns=edge, points=points
    )
    assert zoom.maximum == [scores[2, peak]]


def test_scores_are_current_and_of_the_requested_kind(client, run):
    client.put_stream(run, "zl", ZERO_LAG)
    client.put_injections(run, "set", InjectionSet(injections=[]))
    client.put_stream(run, "inj", injected("set"))
    client.put_chunk(run, "zl", 0, chunk(0))
    assert len(client.scores(run).time) == 64
    client.put_chunk(run, "inj", 0, chunk(0, size=40))
    client.put_chunk(run, "zl", 1, chunk(1))
    answer = client.scores(run)
    assert len(answer.time) == 128
    assert [(one.start, one.stop) for one in answer.received] == [(GPS, GPS + 16)]
    assert len(client.scores(run, kind="injections").time) == 40


@pytest.mark.parametrize("points", [1, 3, 10])
def test_scores_of_many_chunks_are_thinned_chunk_by_chunk(client, run, points):
    """Against the extremes of the strides, also at the range's ends."""
    client.put_stream(run, "zl", ZERO_LAG)
    rng = np.random.default_rng(points)
    size, count = 16, 60
    scores = rng.normal(size=(count, size)).astype(np.float32)
    valid = rng.random((count, size)) < 0.8
    valid[7] = False
    for number in range(count):
        body = chunk(number, size=size, valid=valid[number].tolist())
        body = body.model_copy(update={"scores": scores[number].tolist()})
        client.put_chunk(run, "zl", number, body)
    first, last = 5, count * size - 9
    answer = client.scores(
        run,
        start_ns=GPS * SECOND + first * STRIDE,
        stop_ns=GPS * SECOND + last * STRIDE,
        points=points,
    )
    assert answer.bucket >= size / 8
    assert len(answer.time) <= points + 1
    flat, flags = scores.ravel()[first:last], valid.ravel()[first:last]
    assert max(answer.maximum) == flat[flags].max()
    assert min(answer.minimum) == flat[flags].min()
    at = answer.time[int(np.argmax(answer.maximum))]
    peak = GPS + (first + int(np.argmax(np.where(flags, flat, -np.inf))) + 1) / 8
    assert abs(at - peak) < 2 * answer.bucket
    dead = sum(part.stop - part.start for part in answer.invalid)
    assert dead == pytest.approx(np.count_nonzero(~flags) / 8)
    assert [(part.start, part.stop) for part in answer.received] == [
        (GPS + first / 8, GPS + last / 8)
    ]


# Bad input


def body_with(**changes):
    return json.loads(chunk(0, [(3.0, 1.0)]).model_dump_json()) | changes


BAD_CHUNKS = {
    "nan score": body_with(scores=[math.nan] * 64),
    "infinite statistic": body_with(
        events=[{"time_ns": (GPS + 3) * SECOND, "statistic": math.inf}]
    ),
    "scores too few": body_with(scores=[0.0] * 63),
    "no scores": body_with(scores=None),
    "empty": body_with(valid=[], scores=[]),
    "another stride": body_with(stride_ns=250_000_000),
    "event before": body_with(
        events=[{"time_ns": (GPS - 60) * SECOND, "statistic": 1.0}]
    ),
    "event after": body_with(
        events=[{"time_ns": (GPS + 9) * SECOND, "statistic": 1.0}]
    ),
    "event in time that is not valid": body_with(valid=[False] * 64),
    "livetime sent": body_with(livetime=1000.0),
    "fractional time": body_with(start_ns=GPS * SECOND + 0.5),
    "time beyond 64 bits": body_with(start_ns=2**64),
    "score beyond single precision": body_with(scores=[1e39] * 64),
    "valid not boolean": body_with(valid=[2] * 64),
    "a list": [],
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_bad_chunk_is_refused_whole(api, client, name):
    run = "bad-chunks"
    client.put_run(run, RUN)
    client.put_stream(run, "zl", ZERO_LAG)
    response = httpx.put(
        f"{api.url}/v1/runs/{run}/streams/zl/chunks/0",
        # json.dumps writes NaN and Infinity, which are not JSON, but clients send them.
        content=json.dumps(BAD_CHUNKS[name]),
        headers={
            "Authorization": f"Bearer {api.token}",
            "Content-Type": "application/json",
        },
    )
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:chirpwatch:invalid"
    assert problem["detail"]
    assert client.run(run).zero_lag.chunks == 0


@pytest.mark.parametrize(
    "stream",
    [
        {"kind": "background", "shifts": {"H1": 0.0, "L1": 4.0}},
        {"kind": "zero_lag", "shifts": {"H1": 0.0, "V1": 0.0}},
        {"kind": "zero_lag", "shifts": {"H1": 0.0}},
        {"kind": "zero_lag", "shifts": {"H1": 0.0, "L1": 4.0}},
        {"kind": "zero_lag", "shifts": {"H1": 0.0, "L1": 0.0}, "injection_set": "x"},
        {"kind": "injections", "shifts": {"H1": 0.0, "L1": 0.0}},
        {
            "kind": "injections",
            "shifts": {"H1": 1e11, "L1": 1e300},
            "injection_set": "x",
        },
    ],
)
def test_a_stream_that_contradicts_its_kind_is_refused(api, client, stream):
    client.put_run("bad-streams", RUN)
    response = httpx.put(
        f"{api.url}/v1/runs/bad-streams/streams/s",
        json=stream | {"segment": f"{GPS}-64"},
        headers={"Authorization": f"Bearer {api.token}"},
    )
    assert response.status_code == 422, response.text
    assert client.streams("bad-streams") == []


def test_an_impossible_geometry_is_refused(api):
    run = json.loads(RUN.model_dump_json())
    run["geometry"]["kernel_length"] = 1 / 3
    response = httpx.put(
        f"{api.url}/v1/runs/odd",
        json=run,
        headers={"Authorization": f"Bearer {api.token}"},
    )
    assert response.status_code == 422
    assert "whole number of samples" in response.json()["detail"]


def test_geometry_bodies_have_the_fields_of_geometry():
    assert set(GeometryBody.model_fields) == {field.name for field in fields(Geometry)}
    assert GeometryBody.of(Geometry()).geometry() == Geometry()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/runs/absent", 404),
        ("/v1/runs/absent/candidates", 404),
        ("/v1/runs/a%2Fb", 404),
        ("/v1/runs/a'%20OR%201=1", 422),
        ("/nowhere", 404),
        ("/v1/runs?limit=0", 422),
        ("/v1/runs/absent/far?statistic=nan", 404),
        ("/static/..%2f..%2fapp.py", 404),
        ("/?run=absent", 404),
    ],
)
def test_unknown_names_are_answered_with_problems(api, path, status):
    response = httpx.get(api.url + path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()) >= {"type", "title", "status", "detail", "instance"}


def test_a_request_that_is_too_large_is_refused_while_it_arrives(api):
    def flood():
        for _ in range(MAX_BODY_SIZE // 2**20 + 2):
            yield b" " * 2**20

    headers = {"Authorization": f"Bearer {api.token}"}
    try:
        response = httpx.put(
            f"{api.url}/v1/runs/large", content=flood(), headers=headers
        )
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # The service may close the connection before the body ends.
    assert httpx.get(f"{api.url}/healthz").json()["status"] == "ok"


def test_a_large_content_length_is_refused_before_the_body(api):
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            b"PUT /v1/runs/large HTTP/1.1\r\nHost: api\r\n"
            b"Authorization: Bearer " + api.token.encode() + b"\r\n"
            b"Content-Length: 999999999\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"urn:chirpwatch:too-large" in answer


def test_a_write_without_the_token_is_refused_before_the_body(api):
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            b"PUT /v1/runs/large HTTP/1.1\r\nHost: api\r\n"
            b"Content-Length: 9999999\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 401 " in answer.split(b"\r\n")[0]
    assert b"urn:chirpwatch:token" in answer


# Tokens, ports, processes


@pytest.mark.parametrize("token", [None, "wrong", "ü"])
def test_writing_needs_the_token_and_reading_does_not(api, token):
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
    response = httpx.put(
        f"{api.url}/v1/runs/mine",
        content=RUN.model_dump_json(),
        headers=headers | {"Content-Type": "application/json"},
    )
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert api.token not in response.text
    with ApiClient(api.url) as reader:
        assert reader.health().status == "ok"


def test_unreachable_and_refusing_apis_raise_different_errors(api):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        ApiClient(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ApiUnavailable, match=f"no API at http://127.0.0.1:{port}"),
    ):
        client.health()
    with ApiClient(api.url) as client, pytest.raises(ApiRefused, match="not exist"):
        client.run("absent")
    with ApiClient("nonsense") as client, pytest.raises(ApiError, match="nonsense"):
        client.health()


def test_a_taken_port_is_named(api, tmp_path):
    port = int(api.url.rsplit(":", 1)[1])
    with (
        pytest.raises(ApiError, match=f"port {port}.*--port"),
        ApiProcess(tmp_path / "x.db", port=port, log=tmp_path / "x.log"),
    ):
        pass


@pytest.mark.parametrize("content", [None, b"this is not a database" * 100])
def test_a_database_that_cannot_be_opened_is_named(tmp_path, content):
    path = tmp_path / "absent" / "x.db"
    if content is not None:
        path = tmp_path / "x.db"
        path.write_bytes(content)
    with (
        pytest.raises(ApiError, match=r"x\.db: the database cannot be opened"),
        ApiProcess(path, log=tmp_path / "x.log"),
    ):
        pass


def test_other_machines_need_a_token(tmp_path):
    command = [
        sys.executable,
        "-m",
        "chirpwatch.api",
        "--database",
        str(tmp_path / "x.db"),
    ]
    done = subprocess.run(
        [*command, "--host", "0.0.0.0", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "--token-file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_file_is_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "token"
    command = [
        sys.executable,
        "-m",
        "chirpwatch.api",
        "--database",
        str(tmp_path / "x.db"),
    ]
    with subprocess.Popen(
        [*command, "--port", "0", "--token-file", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        url = process.stdout.readline().split()[-1]
        assert path.stat().st_mode & 0o777 == 0o600
        with ApiClient(url, path.read_text().strip()) as client:
            assert client.put_run("a", RUN)
        process.terminate()


def test_the_api_ends_with_its_killed_parent(tmp_path):
    script = (
        "import sys, time; from chirpwatch.api.process import ApiProcess\n"
        f"with ApiProcess({str(tmp_path / 'x.db')!r}, log={str(tmp_path / 'log')!r}) "
        "as api: print(api.url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        url = parent.stdout.readline().strip()
        with ApiClient(url) as client:
            client.health()
            parent.kill()
            parent.wait()
            deadline = time.monotonic() + 10
            with pytest.raises(ApiUnavailable):
                while time.monotonic() < deadline:
                    client.health()
                    time.sleep(0.05)


def test_several_writers_at_once_store_each_chunk_once(api, run):
    with api.client() as client:
        client.put_stream(run, "zl", ZERO_LAG)
    created: list[bool] = []

    def write():
        with api.client() as client:
            created.extend(client.put_chunk(run, "zl", n, chunk(n)) for n in range(12))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(created) == [False] * 36 + [True] * 12
    with api.client() as client:
        assert client.run(run).zero_lag.livetime == 96.0


# The API's description


@pytest.fixture(scope="module")
def openapi(api):
    return httpx.get(f"{api.url}/openapi.json").json()


def test_every_body_has_an_example_that_the_api_takes(openapi, client):
    run = "example"
    bodies = {
        (method, path): operation["requestBody"]["content"]["application/json"]
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    examples = {}
    for (method, path), body in bodies.items():
        name = body["schema"]["$ref"].rsplit("/", 1)[1]
        [examples[method, path]] = openapi["components"]["schemas"][name]["examples"]
    names = {
        "run_id": run,
        "stream_id": "stream",
        "set_name": "bbh",
        "number": "0",
        "veto": "storm",
        "start_ns": "0",
    }
    # The run first, then streams, then requests that need them.
    for method, path in sorted(
        examples, key=lambda key: (len(key[1]), key[0] == "patch")
    ):
        answer = httpx.request(
            method,
            client.url + path.format(**names).replace(":int", ""),
            json=examples[method, path],
            headers=dict(client._http.headers),
        )
        assert answer.is_success, (method, path, answer.text)
    # The veto removes one of the two events, and a minute.
    background = client.run(run).background
    assert (background.events, background.vetoed) == (1, 60.0)


def test_every_field_and_parameter_is_described(openapi):
    for name, schema in openapi["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, value in schema.get("properties", {}).items():
            described = value.get("description") or "$ref" in value
            assert described, f"{name}.{field}"
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            for parameter in operation.get("parameters", []):
                assert parameter.get("description"), (method, path, parameter["name"])
            writes = method in {"put", "patch", "delete"}
            assert ("security" in operation) == writes
            assert ("401" in operation["responses"]) == writes


def test_references_in_the_description_resolve(openapi):
    text = json.dumps(openapi)
    schemas = openapi["components"]["schemas"]
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in schemas


@pytest.mark.slow
def test_the_api_conforms_to_its_description(api, client, run, tmp_path):
    """Schemathesis sends requests that the description allows, and others."""
    client.put_stream(run, "zl", ZERO_LAG)
    client.put_chunk(run, "zl", 0, chunk(0, [(3.0, 1.0)]))
    client.put_block(run, 0, block(slide(4.0, [(23, 0.0, 2.0)])))
    # Existing names, so that requests are not just answered with 404.
    names = {
        "run_id": run,
        "stream_id": "zl",
        "set_name": "set",
    }
    # Where a number follows the run's name in the path, a name that must be refused is
    # replaced by the one above, and then taken.
    replaced = """
[[operations]]
include-path-regex = "(candidates|strain)/"
checks.negative_data_rejection.enabled = false
"""
    (tmp_path / "schemathesis.toml").write_text(
        "[parameters]\n"
        + "".join(f'"path.{name}" = "{value}"\n' for name, value in names.items())
        + replaced
    )
    done = subprocess.run(
        [
            *(shutil.which("st", path=Path(sys.executable).parent), "run"),
            f"{api.url}/openapi.json",
            *("--header", f"Authorization: Bearer {api.token}"),
            *("--phases", "coverage,fuzzing", "--max-examples", "5", "--seed", "1"),
            # Rules between two fields, such as equal lengths, are beyond a schema.
            *("--exclude-checks", "positive_data_acceptance"),
            # This response never ends.
            *("--exclude-path", "/v1/live"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr


# Requests that would make a FAR too low or an efficiency too high


def test_the_same_pairs_of_data_count_once(client, run):
    client.put_block(run, 0, block(slide(4.0), slide(8.0)))
    # In a circular stretch of 128 s, a shift of -120 s equals 8 s.
    for shift in (6.1, 8.0, -120.0, 136.0):
        with pytest.raises(ApiRefused, match="must not be counted twice") as refused:
            client.put_block(run, 1, block(slide(shift)))
        assert refused.value.status == 409
        twice = block(slide(20.0), slide(8.0), slide(shift), number=1)
        with pytest.raises(ApiRefused, match="must not be counted twice") as refused:
            client.put_block(run, 1, twice)
        assert refused.value.status == 422
    assert client.put_block(run, 1, block(slide(6.0)))
    assert client.run(run).background.livetime == 24.0


def test_stretches_are_equal_or_disjoint(client, run):
    client.put_block(run, 0, block(slide(4.0)))
    with pytest.raises(ApiRefused, match="not of the same stretch") as refused:
        client.put_block(run, 1, block(slide(20.0), strides=1000))
    assert refused.value.status == 409
    assert client.put_block(run, 1, block(slide(4.0), number=1))
    assert client.put_block(run, 2, block(slide(20.0)))


@pytest.mark.parametrize("shift", [0.0, 0.001, 1.9, -1.9, 126.1, 128.0])
def test_a_slide_within_reach_of_a_signal_is_refused(client, run, shift):
    with pytest.raises(ApiRefused, match=r"at least kernel and filter, 2 s"):
        client.put_block(run, 0, block(slide(shift)))


SLIDE = slide(4.0, [(9, 0.5, 1.0)]).model_dump()
BAD_SLIDES = {
    "lists of unequal length": {"delays": []},
    "event in time that is not valid": {"strides": [64]},
    "event before all that is valid": {"valid": [[10, 20]]},
    "empty range": {"valid": [[0, 64], [70, 70]]},
    "overlapping ranges": {"valid": [[0, 64], [63, 70]]},
    "range of three": {"valid": [[0, 64, 70]]},
    "range past the end": {"valid": [[0, 1025]]},
    "two events at one stride": {
        "strides": [9, 9],
        "delays": [0.0, 0.0],
        "statistics": [1.0, 1.0],
    },
    "nan statistic": {"statistics": [math.nan]},
    "statistic beyond single precision": {"statistics": [1e39]},
    "fractional stride": {"strides": [9.5]},
    "first detector shifted": {"shifts": {"H1": 1.0, "L1": 9.0}},
    "detector missing": {"shifts": {"H1": 0.0}},
    "detector unknown": {"shifts": {"H1": 0.0, "V1": 4.0}},
    "livetime sent": {"livetime": 8.0},
}


@pytest.mark.parametrize("name", BAD_SLIDES)
def test_a_bad_block_is_refused_whole(api, client, run, name):
    body = block(slide(20.0)).model_dump()
    body["slides"].append(SLIDE | BAD_SLIDES[name])
    response = httpx.put(
        f"{api.url}/v1/runs/{run}/background/0",
        content=json.dumps(body),
        headers={
            "Authorization": f"Bearer {api.token}",
            "Content-Type": "application/json",
        },
    )
    assert response.status_code == 422, response.text
    assert response.json()["type"] == "urn:chirpwatch:invalid"
    assert client.blocks(run) == []


def test_blocks_list_the_stored_ones(client, run):
    planned = RUN.model_copy(update={"planned_background": 1e6})
    name = run + "-planned"
    client.put_run(name, planned)
    client.put_block(name, 7, block(slide(4.0, [(9, 0.5, 1.0)]), slide(8.0, valid=())))
    (there,) = client.blocks(name)
    assert (there.number, there.start_ns, there.strides) == (7, GPS * SECOND, 1024)
    assert (there.slides, there.events, there.livetime) == (2, 1, 8.0)
    status = client.run(name)
    assert status.background.planned == 1e6
    assert (status.background.blocks, status.background.slides) == (1, 2)
    assert (status.start, status.stop) == (GPS, GPS + 128.0)
    assert [slide.loudest for slide in client.background(name).slides] == [1.0, None]


def test_a_new_block_enters_the_rates_at_once(client, run):
    client.put_block(run, 0, block(slide(4.0, [(9, 0.0, 1.0)])))
    assert client.far(run, 0.5).count == 1
    client.put_block(run, 1, block(slide(4.0, [(9, 0.0, 2.0)]), number=1))
    far = client.far(run, 0.5)
    assert (far.count, far.livetime) == (2, 16.0)


def test_an_injection_is_scored_at_a_single_shift(client, run):
    client.put_stream(run, "a", injected("set"))
    shifted = injected("set").model_copy(update={"shifts": {"H1": 0.0, "L1": 4.0}})
    with pytest.raises(ApiRefused, match="use one set for each"):
        client.put_stream(run, "b", shifted)


def test_a_password_is_not_shown():
    for url in ("postgresql+psycopg://u:SECRET@h/db", "postgresql://u:SECRET@h:x/db"):
        with pytest.raises(ApiError) as caught:
            Database(url)
        assert "SECRET" not in str(caught.value)
