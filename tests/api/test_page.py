"""The page in a real headless browser, with a real API."""

import re
import time

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from chirpwatch.api.client import ApiClient
from chirpwatch.api.contract.injection_set import (
    Injection,
    InjectionSet,
)
from chirpwatch.api.contract.requests import (
    Block,
    BlockSlide,
    Chunk,
    Event,
    GeometryBody,
    LatencyMs,
    Run,
    RunUpdate,
    Stream,
)
from chirpwatch.api.process import ApiProcess
from chirpwatch.geometry import Geometry
from tests.api.accessibility import serious
from tests.builders import GPS, POPULATION, SECOND, STRIDE

SIZE = 512


@pytest.fixture
def api(tmp_path):
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as process:
        yield process


def declare(client: ApiClient, run: str, name: str = "A run") -> None:
    client.put_run(
        run,
        Run(
            name=name,
            model="9f2c4b7e01ad5c33",
            geometry=GeometryBody.of(Geometry()),
            simulated=True,
            data="made up for a test",
            planned_background=3600.0,
        ),
    )
    for kind in ("zero_lag", "injections"):
        client.put_stream(
            run,
            kind,
            Stream(
                kind=kind,
                shifts={"H1": 0.0, "L1": 0.0},
                segment=f"{GPS}-256",
                injection_set="set" if kind == "injections" else None,
            ),
        )
    injections = [
        Injection(
            time_ns=(GPS + 10 + 20 * i) * SECOND,
            snr=5.0 + i,
            parameters={
                "mass_1": 40.0 + i,
                "mass_2": 30.0,
                "redshift": 0.1 + 0.01 * i,
                "distance": 500.0 + 50 * i,
            },
        )
        for i in range(12)
    ]
    population = POPULATION.model_copy(
        update={"rejected": 100, "mass_distribution": "uniform", "source_frame": False}
    )
    body = InjectionSet(injections=injections, population=population)
    client.put_injections(run, "set", body)


def put_block(client: ApiClient, run: str, number: int, strides, statistics, size=SIZE):
    """Store block `number` of `size` strides with a single slide."""
    client.put_block(
        run,
        number,
        Block(
            start_ns=GPS * SECOND + number * size * STRIDE,
            strides=size,
            stride_ns=STRIDE,
            slides=[
                BlockSlide(
                    shifts={"H1": 0.0, "L1": 4.0},
                    valid=[[63 * (number == 0), size]],
                    strides=strides,
                    delays=[0.0] * len(strides),
                    statistics=statistics,
                )
            ],
        ),
    )


def send(client: ApiClient, run: str, number: int) -> None:
    """Store 64 s of each kind of stream, with events 16 s apart."""
    rng = np.random.default_rng(number)
    put_block(client, run, number, [79, 207, 335], rng.normal(size=3).tolist())
    for kind in ("zero_lag", "injections"):
        valid = np.ones(SIZE, dtype=bool)
        valid[:63] = number > 0
        times = [(GPS + 64 * number + 10 + 16 * i) * SECOND for i in range(3)]
        loudness = rng.normal(size=3) + (9 * (kind == "injections"))
        client.put_chunk(
            run,
            kind,
            number,
            Chunk(
                start_ns=GPS * SECOND + (number * SIZE + 1) * STRIDE,
                stride_ns=STRIDE,
                valid=valid.tolist(),
                scores=(rng.normal(size=SIZE) - 6).tolist(),
                events=[
                    Event(time_ns=time, statistic=float(statistic))
                    for time, statistic in zip(times, loudness, strict=True)
                ],
            ),
        )
    latency = LatencyMs(p50=6.4, p90=8.0, p99=14.0, max=31.0)
    client.update_run(run, RunUpdate(throughput=177.0, latency_ms=latency))


def wait_until_drawn(page: Page, revision: int) -> None:
    page.wait_for_function(
        "revision => Number(document.body.dataset.revision) >= revision",
        arg=revision,
        timeout=15_000,
    )


def test_every_plot_follows_the_run_without_a_reload(page, api):
    with api.client() as client:
        page.goto(api.url)
        expect(page.locator("#empty")).to_be_visible()
        page.evaluate("window.sameDocument = true")

        declare(client, "first")
        send(client, "first", 0)
        wait_until_drawn(page, client.run("first").revision)
        expect(page.locator("#empty")).to_be_hidden()
        expect(page.locator("#data-kind")).to_have_text("simulated data")
        expect(page.locator("#livetime")).to_have_text("56 s")
        expect(page.locator("#throughput")).to_have_text("177 s/s")
        expect(page.locator("#latency")).to_have_text("6.4 ms")
        expect(page.locator("#provenance")).to_contain_text("9f2c4b7e01ad")
        stream = page.locator("#stream")
        for kind in ("zero_lag", "injections"):
            path = stream.locator(f"[data-kind={kind}] path:is(.area, .series)")
            assert len(path.first.get_attribute("d")) > 1000
        expect(stream.locator(".invalid")).to_have_count(2)
        expect(stream.locator(".candidate")).to_have_count(3)
        ifar = page.locator("#ifar")
        expect(ifar.locator("path.band")).to_have_count(1)
        expect(ifar.locator("path.background")).to_have_count(1)
        expect(ifar.locator(".mark")).to_have_count(3)
        expect(page.locator("#candidates tbody tr")).to_have_count(3)
        expect(page.locator("#slides tbody tr")).to_have_count(1)
        expect(page.locator("#background")).to_have_text("56 s")
        expect(page.locator("#background-note")).to_have_text(
            "of 1 h planned, 3 events"
        )

        send(client, "first", 1)
        wait_until_drawn(page, client.run("first").revision)
        expect(page.locator("#livetime")).to_have_text("2 min")
        expect(page.locator("#candidates tbody tr")).to_have_count(6)
        expect(stream.locator(".found, .missed")).to_have_count(6)
        expect(page.locator("#efficiency .bin").first).to_be_attached()
        expect(page.locator("#plane :is(.found, .missed)")).to_have_count(6)
        expect(page.locator("#volumes tbody tr")).to_have_count(4)
        expect(page.locator("#volumes-note")).to_contain_text("100 draws")
        expect(page.locator("#progress-note")).to_contain_text(
            "3 % of 1 h, in 2 blocks"
        )

        declare(client, "second", "The newest run")
        expect(page).to_have_title("The newest run · chirpwatch", timeout=15_000)
        expect(page.locator("#ifar")).to_contain_text("No background yet")
        page.locator("#run").select_option("first")
        expect(page).to_have_title("A run · chirpwatch")
    assert page.evaluate("window.sameDocument")


def test_every_plot_downloads_as_a_picture_and_as_data(page, api, tmp_path):
    with api.client() as client:
        declare(client, "run")
        for number in range(2):
            send(client, "run", number)
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
        page.locator("#by").select_option("total_mass")
        expect(page.locator("#efficiency")).to_contain_text("Total mass")
        columns = {
            "stream": "kind,gps_time_s,minimum,maximum",
            "ifar": "statistic,ifar_years,ifar_years_low,ifar_years_high,count",
            "efficiency": "total_mass_low_solar,total_mass_high_solar,injections,found",
            "drift": "statistic,expected,observed,p_value",
            "plane": "gps_time_s,snr,chirp_mass_solar,distance_mpc,reason,statistic",
        }
        for plot, header in columns.items():
            panel = page.locator(f".panel:has(#{plot})")
            for kind in ("PNG", "CSV"):
                with page.expect_download() as download:
                    panel.get_by_role("button", name=f"download {kind}").click()
                name = download.value.suggested_filename
                assert name == f"run-{plot}.{kind.lower()}"
                download.value.save_as(tmp_path / name)
            picture = (tmp_path / f"run-{plot}.png").read_bytes()
            assert picture.startswith(b"\x89PNG")
            assert len(picture) > 8000
            lines = (tmp_path / f"run-{plot}.csv").read_text().splitlines()
            assert lines[0].startswith(header)
            assert len(lines) > 2
        ifar = client.ifar("run").points
        lines = (tmp_path / "run-ifar.csv").read_text().splitlines()[1:]
        assert [float(line.split(",")[0]) for line in lines] == [
            point.statistic for point in ifar
        ]


def test_a_saturated_rate_is_marked(page, api):
    with api.client() as client:
        declare(client, "run")
        send(client, "run", 0)
        send(client, "run", 1)
        loud = Event(time_ns=(GPS + 140) * SECOND, statistic=50.0)
        client.put_chunk(
            "run",
            "zero_lag",
            2,
            Chunk(
                start_ns=GPS * SECOND + (2 * SIZE + 1) * STRIDE,
                stride_ns=STRIDE,
                valid=[True] * SIZE,
                scores=[0.0] * SIZE,
                events=[loud],
            ),
        )
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
    first = page.locator("#candidates tbody tr").first
    expect(first).to_contain_text("≤")
    expect(first).to_contain_text("louder than all background")
    assert page.locator("#ifar .arrow").count() >= 1
    page.locator("#far").select_option(label="1 per minute")
    expect(page.locator("#bins-note")).to_contain_text("6 not analysed yet")


def in_view(page: Page) -> tuple[float, float]:
    """Start, GPS s, and length, s, of the scores' plot."""
    told = page.locator("#readout").inner_text()
    match = re.match(r"GPS (\S+) to (\S+) s ·", told)
    assert match, told
    return float(match[1]), float(match[2]) - float(match[1])


def test_keys_buttons_wheel_and_candidates_change_the_time_range(page, api):
    with api.client() as client:
        declare(client, "run")
        for number in range(3):
            send(client, "run", number)
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
    # 192 s; scores are drawn a second before their right edge.
    first, length = GPS - 1, 192
    stream = page.locator("#stream")
    stream.focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert in_view(page) == (first + 3 / 8 * length, length / 4)
    page.keyboard.press("ArrowRight")
    assert in_view(page) == (first + (3 / 8 + 1 / 16) * length, length / 4)
    page.keyboard.press("-")
    page.keyboard.press("ArrowLeft")
    assert in_view(page) == (first + (5 / 16 - 1 / 8) * length, length / 2)
    box = stream.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + 80
    page.mouse.move(*middle)
    page.mouse.wheel(0, -100)
    page.mouse.move(middle[0], box["y"] - 20)
    assert in_view(page)[1] == length / 4
    before = in_view(page)[0]
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 200, middle[1])
    page.mouse.up()
    page.mouse.move(middle[0], box["y"] - 20)
    assert before - 12 < in_view(page)[0] < before - 5
    expect(page.locator("#readout")).to_contain_text("zero-lag at most")
    page.get_by_role("button", name="All").click()
    expect(page.locator("#readout")).to_contain_text("Drag to move")
    row = page.locator("#candidates tbody tr").first
    row.get_by_role("button").click()
    assert in_view(page)[1] == 40
    time = float(row.locator("a").inner_text())
    assert in_view(page)[0] == pytest.approx(max(first, time - 20), abs=0.1)
    stream.hover()
    expect(page.locator("#readout")).to_contain_text("UTC")


def test_a_second_of_a_year_can_be_viewed(page, api):
    day = 86_400
    with api.client() as client:
        declare(client, "run")
        send(client, "run", 0)
        # There are no data between the first chunk and this.
        start_ns = GPS * SECOND + 340 * day * SECOND
        late = Event(time_ns=start_ns + 30 * SECOND, statistic=20.0)
        client.put_chunk(
            "run",
            "zero_lag",
            1,
            Chunk(
                start_ns=start_ns,
                stride_ns=STRIDE,
                valid=[True] * SIZE,
                scores=[0.0] * SIZE,
                events=[late],
            ),
        )
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
    stream = page.locator("#stream")
    expect(stream).to_contain_text(f"days after GPS {GPS} ")
    expect(stream.locator("[data-kind=zero_lag] .absent")).to_have_count(1)
    page.locator("#candidates tbody button").first.click()
    stream.focus()
    for _ in range(7):
        page.keyboard.press("+")
    assert in_view(page)[1] == 1
    axis = stream.locator("svg > g").first
    labels = axis.locator("text:not(.title)").all_text_contents()
    assert len(labels) >= 4
    assert len(set(labels)) == len(labels)
    origin = int(re.search(r"seconds after GPS (\d+)", axis.text_content())[1])
    assert labels == sorted(labels, key=float)
    for label in labels:
        assert abs(origin + float(label) - late.time_ns / SECOND) < 1


def test_a_phone_needs_no_horizontal_scrolling(page, api):
    with api.client() as client:
        declare(client, "run", "A run with quite a long name, as they tend to have")
        for number in range(2):
            send(client, "run", number)
        page.set_viewport_size({"width": 360, "height": 740})
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    for panel in page.locator("#stream, #ifar, #efficiency").all():
        box = panel.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_the_page_reports_a_lost_service_and_reconnects(browser, api, tmp_path):
    context = browser.new_context()
    page = context.new_page()
    with api.client() as client:
        declare(client, "run")
    page.goto(api.url)
    expect(page.locator("#state")).to_have_text("running")
    port = int(api.url.rpartition(":")[2])
    api.stop()
    expect(page.locator("#link")).to_contain_text("cannot be reached", timeout=15_000)
    log = tmp_path / "api.log"
    with ApiProcess(tmp_path / "results.db", port=port, log=log) as again:
        expect(page.locator("#link")).to_be_hidden(timeout=20_000)
        with again.client() as client:
            client.update_run("run", RunUpdate(state="complete"))
        expect(page.locator("#state")).to_have_text("complete", timeout=15_000)
        context.close()


def test_a_tables_focus_stays_while_its_rows_change(page, api):
    with api.client() as client:
        declare(client, "run")
        send(client, "run", 0)
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
        page.locator("#candidates tbody a").nth(1).focus()
        # The rates change, and the row with them.
        send(client, "run", 1)
        wait_until_drawn(page, client.run("run").revision)
    expect(page.locator("#candidates tbody tr")).to_have_count(6)
    expect(page.locator("#candidates tbody a").nth(1)).to_be_focused()
    expect(page.locator("#run option")).to_have_count(1)


def test_names_are_shown_as_text_not_markup(page, api):
    name = '<img src=x onerror=alert(1)> & "quotes" {{ 7 * 7 }}'
    with api.client() as client:
        declare(client, "run", name)
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
    expect(page.locator("#run option")).to_have_text([name])
    expect(page).to_have_title(f"{name} · chirpwatch")


def test_the_last_of_two_quick_choices_is_drawn(page, api):
    run, size = "choices", 60_000
    with api.client() as client:
        declare(client, run)
        statistics = [float(i) for i in range(12)]
        strides = [79 + 160 * i for i in range(12)]
        put_block(client, run, 0, strides, statistics, size)
        client.put_chunk(
            run,
            "injections",
            0,
            Chunk(
                start_ns=GPS * SECOND + STRIDE,
                stride_ns=STRIDE,
                valid=[True] * size,
                scores=[0.0] * size,
                events=[
                    Event(time_ns=(GPS + 10 + 20 * i) * SECOND, statistic=statistic)
                    for i, statistic in enumerate(statistics)
                ],
            ),
        )
        client.update_run(run, RunUpdate(state="complete"))

    def slowly(route):
        time.sleep(0.1)
        route.continue_()

    page.route("**/v1/**", slowly)
    page.goto(f"{api.url}/?run={run}")
    threshold = page.locator("#bins-note")
    expect(threshold).to_contain_text("threshold", timeout=10_000)
    drawn: dict[str, str] = {}
    before = ""
    for label in ("1 per 10 minutes", "1 per minute", "1 per hour"):
        page.locator("#far").select_option(label=label)
        if drawn:
            expect(threshold).not_to_have_text(before, timeout=10_000)
        else:
            page.wait_for_timeout(3000)
        before = drawn[label] = threshold.inner_text()
    assert len(set(drawn.values())) == 3
    for gap in (150, 300, 450):
        page.locator("#far").select_option(label="1 per minute")
        page.wait_for_timeout(gap)
        page.locator("#far").select_option(label="1 per hour")
        page.wait_for_timeout(1500)
        assert threshold.inner_text() == drawn["1 per hour"]


@pytest.mark.slow
def test_axe_finds_no_serious_violation(page, api):
    with api.client() as client:
        declare(client, "run")
        for number in range(2):
            send(client, "run", number)
        page.goto(api.url)
        wait_until_drawn(page, client.run("run").revision)
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert serious(page) == []
