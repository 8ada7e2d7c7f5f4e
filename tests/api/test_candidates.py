"""A candidate's values, its strain and Q-transform, and its page."""

import base64

import numpy as np
import pytest
from gwpy.timeseries import TimeSeries
from playwright.sync_api import expect

from chirpwatch.api.client import ApiRefused
from chirpwatch.api.contract.requests import (
    Strain,
    Veto,
)
from chirpwatch.units import JULIAN_YEAR
from tests.api.accessibility import serious
from tests.builders import GPS, RUN, SECOND, ZERO_LAG, block, chunk, slide

RATE = 2048
AT = GPS * SECOND + 30_062_500_000
"""The candidate's time, ns."""


def noise_with_a_chirp():
    """16 s of white noise of H1 and L1 from 18 s on, and a sweep to 250 Hz until AT."""
    rng = np.random.default_rng(1)
    t = np.arange(16 * RATE) / RATE - (AT / SECOND - GPS - 18)
    inside = (t > -0.3) & (t < 0)
    sweep = np.where(inside, np.sin(2 * np.pi * (250 * t + 300 * t**2)), 0)
    return {
        ifo: (1e-21 * (rng.standard_normal(t.size) + 3 * sweep)).astype("<f4")
        for ifo in ("H1", "L1")
    }


def strain_body(series, rate=RATE):
    text = {
        ifo: base64.b64encode(one.tobytes()).decode() for ifo, one in series.items()
    }
    return Strain(sample_rate=rate, strain=text)


@pytest.fixture(scope="module")
def client(api):
    with api.client() as client:
        client.put_run("run", RUN)
        client.put_stream("run", "zl", ZERO_LAG)
        valid = [True] * 512
        valid[100:108] = [False] * 8
        events = [(30.0625, 9.0), (3.0, 1.0), (50.0, 2.0)]
        client.put_chunk("run", "zl", 0, chunk(0, events, size=512, valid=valid))
        client.put_block("run", 0, block(slide(4.0, [(9, 0.5, 3.0), (40, 0.5, 10.0)])))
        client.put_strain("run", (GPS + 18) * SECOND, strain_body(noise_with_a_chirp()))
        yield client


def test_a_candidate_has_the_scores_and_events_around_it(client):
    candidates = client.candidates("run").candidates
    one = client.candidate("run", int(candidates[0].id))
    assert (one.time_ns, one.statistic, one.rank) == (AT, 9.0, 1)
    assert one.far_per_year == candidates[0].far_per_year
    assert (one.count, one.saturated) == (1, False)
    expected = 1 - np.exp(-one.far_per_year * one.observing_time / JULIAN_YEAR)
    assert one.false_alarm_probability == pytest.approx(expected)
    assert [event.statistic for event in one.neighbours] == [2.0, 1.0]
    # By the windows' centres, 1 s before the right edges, which are the scores' times.
    assert [(part.start - GPS, part.stop - GPS) for part in one.invalid] == [
        (11.5, 12.5)
    ]
    assert [(part.start, part.stop) for part in one.absent] == [
        (AT / SECOND - 64, GPS - 1),
        (GPS + 63, AT / SECOND + 64),
    ]
    assert one.strain
    assert not client.candidate("run", (GPS + 3) * SECOND).strain
    with pytest.raises(ApiRefused, match="no zero-lag event"):
        client.candidate("run", AT + 1)
    assert client.put_veto("run", "v", Veto(segments=[[AT, AT + SECOND]]))
    # Another list under the same name: no new time, but a change.
    segments = [[AT - SECOND, AT + SECOND]]
    assert client.put_veto("run", "v", Veto(segments=segments))
    assert not client.put_veto("run", "v", Veto(segments=segments))
    vetoed = client.candidate("run", AT)
    assert vetoed.vetoed
    ((veto,),) = ([veto.segments for veto in vetoed.vetoes_nearby],)
    assert [(part.start, part.stop) for part in veto] == [
        (AT / SECOND - 1, AT / SECOND + 1)
    ]
    # Vetoed events count neither for the rank nor as neighbours.
    second = client.candidate("run", (GPS + 50) * SECOND)
    assert client.candidates("run").candidates[0].id == second.id
    assert second.rank == 1
    assert [event.statistic for event in second.neighbours] == [1.0]
    client.delete_veto("run", "v")


def test_whitened_strain_and_q_transform_agree_with_gwpy(client):
    white = client.whitened("run", AT)
    series = np.array(white.strain["H1"])
    times = white.start + np.arange(series.size) / white.sample_rate
    # Rounding by a sample at most.
    assert times[0] == pytest.approx(-0.6, abs=1 / RATE)
    assert series[times < -0.35].std() == pytest.approx(1, abs=0.15)
    inside = (times > -0.25) & (times < -0.01)
    assert series[inside].std() > 1.6
    assert series[times > 0.02].std() < 1.2
    transform = client.q_transform("run", AT, "L1")
    energy = np.array(transform.energy)
    column, row = np.unravel_index(energy.argmax(), energy.shape)
    assert -0.3 < transform.start + column * transform.step < 0.01
    assert 50 < transform.frequencies[row] < 300
    # gwpy's own Q-transform.
    data = noise_with_a_chirp()["L1"].astype(float)
    offset = AT / SECOND - GPS - 18
    theirs = TimeSeries(data, sample_rate=RATE).q_transform(
        frange=(20, 0.4 * RATE),
        outseg=(offset - 0.6, offset + 0.3),
        logf=True,
        fftlength=2,
        overlap=1,
    )
    assert energy.max() == pytest.approx(float(theirs.max().value), rel=0.1)
    with pytest.raises(ApiRefused, match="found V1"):
        client.q_transform("run", AT, "V1")
    with pytest.raises(ApiRefused, match="a replay sends"):
        client.whitened("run", (GPS + 3) * SECOND)


def test_invalid_strain_is_refused(client):
    series = noise_with_a_chirp()
    start = (GPS + 18) * SECOND
    assert client.put_strain("run", start, strain_body(series)) is False
    short = {ifo: one[:100] for ifo, one in series.items()}
    with pytest.raises(ApiRefused, match="other content"):
        client.put_strain("run", start, strain_body(short))
    with pytest.raises(ApiRefused, match="found H1"):
        client.put_strain("run", 1, strain_body({"H1": series["H1"]}))
    for strain in (
        {"H1": series["H1"], "L1": series["L1"][:-1]},
        {"H1": np.full(10, np.nan, "<f4"), "L1": np.zeros(10, "<f4")},
    ):
        with pytest.raises(ValueError, match=r"expected (the same number|finite)"):
            strain_body(strain)
    with pytest.raises(ValueError, match="base64"):
        Strain(sample_rate=RATE, strain={"H1": "???", "L1": "???"})


def test_the_page_of_a_candidate_shows_its_strain(page, api, client):
    page.goto(api.url)
    page.locator("#candidates tbody a").first.click()
    page.wait_for_function(
        "() => document.body.dataset.drawn === 'yes'", timeout=30_000
    )
    assert page.url.endswith(f"/runs/run/candidates/{AT}")
    assert page.locator("#whitened path.series").count() == 2
    for ifo in ("H1", "L1"):
        assert page.locator(f"#q-{ifo} image").count() == 1
    expect(page.locator("#scores path.series").first).to_be_attached()
    expect(page.locator("#content")).to_contain_text("number 1 of the run's")
    expect(page.locator("#content")).to_contain_text(RUN.model)
    with page.expect_download() as download:
        page.get_by_role("button", name="Q-transform, H1: download PNG").click()
    assert download.value.suggested_filename == f"run-{AT}-q-H1.png"
    with page.expect_download() as download:
        page.get_by_role("button", name="Scores nearby: download CSV").click()
    lines = download.value.path().read_text().splitlines()
    loudest = max(lines[1:], key=lambda line: float(line.split(",")[1] or -99))
    # The test's scores rise with time: the last in the plot is at the view's end.
    assert lines[0] == "gps_time_s,score"
    assert float(loudest.split(",")[0]) == pytest.approx(AT / SECOND + 20, abs=2)
    numbers = page.locator("#content dl")
    expect(numbers).to_contain_text("1 background events as loud")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == []
    # Later results appear without a reload.
    page.evaluate("window.sameDocument = true")
    client.put_block("run", 1, block(slide(4.0, [(9, 0.5, 30.0)]), number=1))
    expect(numbers).to_contain_text("2 background events as loud", timeout=10_000)
    client.put_veto("run", "v", Veto(segments=[[AT - SECOND, AT + SECOND]]))
    expect(page.locator(".badges")).to_contain_text("in vetoed time", timeout=10_000)
    expect(page.locator("#content")).to_contain_text("v: -1.0 to +1.0 s")
    client.delete_veto("run", "v")
    assert page.evaluate("window.sameDocument")
    # Only secure addresses have a clipboard; otherwise the link is shown for copying.
    page.evaluate("delete Navigator.prototype.clipboard")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#address")).to_have_value(page.url)
