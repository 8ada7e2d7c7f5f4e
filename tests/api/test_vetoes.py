"""Vetoes remove events and livetime together, wherever either is counted."""

import numpy as np
import pytest

from chirpwatch.api.client import ApiRefused
from chirpwatch.api.contract.injection_set import (
    Injection,
    InjectionSet,
)
from chirpwatch.api.contract.requests import (
    RunUpdate,
    Stream,
    Veto,
)
from chirpwatch.geometry import Geometry
from chirpwatch.units import JULIAN_YEAR
from tests.builders import GPS, RUN, SECOND, STRIDE, ZERO_LAG, block, chunk, slide

GEOMETRY = Geometry()
LAG = (GEOMETRY.kernel_length + GEOMETRY.fduration) / 2


def veto(*segments, ifos=None):
    """Veto with segments in s after GPS."""
    times = [[GPS * SECOND + round(t * SECOND) for t in pair] for pair in segments]
    return Veto(ifos=ifos, segments=times, reason="a test")


def test_a_veto_removes_background_with_any_detector_in_its_time(client):
    """Against a loop over every event and stride."""
    client.put_run("background", RUN)
    rng = np.random.default_rng(1)
    strides, shifts = 1024, [4.0, 60.015625, 100.5]
    slides = []
    for shift in shifts:
        at = np.sort(rng.choice(np.arange(100, strides), 12, replace=False)).tolist()
        delays = rng.uniform(0.5, 1.5, 12).astype(np.float32).tolist()
        loud = rng.normal(size=12).astype(np.float32).tolist()
        events = list(zip(at, delays, loud, strict=True))
        slides.append(slide(shift, events, valid=[(64, 500), (510, strides)]))
    client.put_block("background", 0, block(*slides))
    segments = {"H1": [(20, 35.5), (30, 41.3)], "L1": [(90, 97.2), (126, 140)]}
    for ifo, parts in segments.items():
        client.put_veto("background", ifo, veto(*parts, ifos=[ifo]))

    def is_vetoed(offset, shift):
        return any(
            begin <= (offset + own) % 128 < end
            for ifo, own in (("H1", 0.0), ("L1", shift))
            for begin, end in segments[ifo]
        )

    kept = []
    for shift, one in zip(shifts, slides, strict=True):
        for stride, delay, statistic in zip(
            one.strides, one.delays, one.statistics, strict=True
        ):
            if not is_vetoed((stride + 1) / 8 - delay, shift):
                kept.append(statistic)
    answer = client.background("background")
    expected = sum(
        not is_vetoed((stride + 1) / 8 - LAG, shift)
        for shift, one in zip(shifts, slides, strict=True)
        for begin, end in one.valid
        for stride in range(begin, end)
    )
    assert answer.livetime == expected / 8
    assert 0 < len(kept) < 36
    assert answer.events == len(kept)
    events = client.events("background", "background", limit=100)
    assert [event.statistic for event in events.events] == sorted(kept, reverse=True)
    assert sum(one.livetime for one in answer.slides) == answer.livetime
    status = client.run("background").background
    assert status.livetime + status.vetoed == 3 * (strides - 74) / 8
    rate = client.far("background", 0.0)
    assert rate.count == sum(statistic >= 0 for statistic in kept)
    assert rate.far_per_year == pytest.approx(
        (rate.count + 1) / answer.livetime * JULIAN_YEAR
    )
    assert rate.vetoes == ["H1", "L1"]


def test_later_blocks_are_vetoed_too_and_a_veto_can_be_withdrawn(client):
    client.put_run("later", RUN)
    events = [(100, 1.0, 1.0), (800, 1.0, 2.0)]
    client.put_block("later", 0, block(slide(4.0, events, valid=[(64, 1024)])))
    assert client.background("later").events == 2
    client.put_veto("later", "early", veto((10, 14)))
    assert client.background("later").events == 1
    client.put_block(
        "later", 1, block(slide(4.0, events, valid=[(64, 1024)]), number=1)
    )
    assert client.background("later").events == 3
    assert client.put_veto("later", "early", veto((10, 14))) is False
    # Another list under the same name replaces it.
    client.put_veto("later", "early", veto((10, 14), (128 + 98, 128 + 103)))
    assert client.background("later").events == 2
    assert [one.duration for one in client.vetoes("later")] == [9.0]
    assert client.veto("later", "early").times_ns[0] == [
        (GPS + 10) * SECOND,
        (GPS + 14) * SECOND,
    ]
    client.delete_veto("later", "early")
    answer = client.background("later")
    assert (answer.events, answer.livetime, answer.vetoes) == (4, 240.0, [])
    with pytest.raises(ApiRefused, match="early"):
        client.delete_veto("later", "early")


def test_a_veto_removes_zero_lag_and_injections_with_their_livetime(client):
    client.put_run("streams", RUN)
    client.put_stream("streams", "zl", ZERO_LAG)
    client.put_chunk("streams", "zl", 0, chunk(0, [(3.0, 5.0), (6.5, 4.0)]))
    client.put_block("streams", 0, block(slide(4.0, [(9, 0.5, 1.0)])))
    at = [3.0, 6.5]
    client.put_injections(
        "streams",
        "set",
        InjectionSet(
            injections=[
                Injection(
                    time_ns=GPS * SECOND + round(t * SECOND), snr=9.0, parameters={}
                )
                for t in at
            ]
        ),
    )
    stream = Stream(
        kind="injections",
        shifts={"H1": 0.0, "L1": 0.0},
        segment=f"{GPS}-4096",
        injection_set="set",
    )
    client.put_stream("streams", "inj", stream)
    client.put_chunk("streams", "inj", 0, chunk(0, [(3.0, 5.0), (6.5, 4.0)], last=True))
    client.update_run("streams", RunUpdate(state="complete"))
    client.put_veto("streams", "one", veto((2.5, 3.5)))
    rate = client.far("streams", 3.0).far_per_year
    candidates = client.candidates("streams")
    assert [one.statistic for one in candidates.candidates] == [4.0]
    assert (candidates.total, candidates.vetoed) == (1, 1)
    assert candidates.livetime == 7.0
    status = client.run("streams")
    assert (status.zero_lag.livetime, status.zero_lag.vetoed) == (7.0, 1.0)
    assert client.events("streams", "zero_lag").total == 1
    answer = client.injections("streams", rate)
    assert (answer.total, answer.vetoed) == (1, 1)
    # A later chunk is vetoed too.
    client.put_veto("streams", "one", veto((2.5, 3.5), (10, 11)))
    client.put_chunk("streams", "zl", 1, chunk(1, [(10.5, 6.0), (13.0, 1.0)]))
    assert [one.statistic for one in client.candidates("streams").candidates] == [
        4.0,
        1.0,
    ]
    assert client.run("streams").zero_lag.livetime == 14.0


def test_an_invalid_veto_is_refused(client):
    client.put_run("refused", RUN)
    with pytest.raises(ApiRefused, match="found V1"):
        client.put_veto("refused", "v", veto((1, 2), ifos=["V1"]))
    body = {"segments": [[2 * STRIDE, STRIDE]]}
    with pytest.raises(ApiRefused, match="an end after its start"):
        client.put_veto("refused", "v", Veto.model_construct(**body, ifos=None))
    assert client.vetoes("refused") == []
