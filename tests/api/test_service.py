"""The service's metrics, readiness, and notification of changes."""

import json
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chirpwatch.api.contract.requests import (
    LatencyMs,
    RunUpdate,
    Veto,
)
from chirpwatch.api.process import ApiProcess
from tests.builders import GPS, RUN, SECOND, ZERO_LAG, block, chunk, slide


@pytest.fixture
def api(tmp_path):
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as process:
        yield process


def samples(api):
    """Every metric sample, by name and labels."""
    text = httpx.get(f"{api.url}/metrics").raise_for_status().text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_cover_the_runs_and_the_service(api):
    with api.client() as client:
        client.put_run("one", RUN)
        client.put_stream("one", "zl", ZERO_LAG)
        client.put_chunk("one", "zl", 0, chunk(0, [(3.0, 1.5)]))
        client.put_block("one", 0, block(slide(4.0, [(9, 0.5, 1.0)])))
        segment = [GPS * SECOND, (GPS + 1) * SECOND]
        client.put_veto("one", "v", Veto(segments=[segment]))
        latency = LatencyMs(p50=10.0, p90=20.0, p99=30.0, max=40.0)
        client.update_run("one", RunUpdate(throughput=90.0, latency_ms=latency))
    found = samples(api)
    assert found["chirpwatch_runs", "running"] == 1
    assert found["chirpwatch_livetime_seconds", "one", "zero_lag"] == 7.0
    assert found["chirpwatch_vetoed_seconds", "one", "zero_lag"] == 1.0
    assert found["chirpwatch_livetime_seconds", "background", "one"] > 0
    assert found["chirpwatch_events", "one", "zero_lag"] == 1
    assert found["chirpwatch_throughput_ratio", "one"] == 90.0
    assert found["chirpwatch_update_latency_seconds", "0.99", "one"] == 0.03
    put = "chirpwatch_request_seconds_count", "/v1/runs/{run_id}", "201", "PUT"
    assert found[put] == 1
    # Unknown addresses do not add metrics.
    for path in ("/nothing", "/v1/nothing/2"):
        assert httpx.get(api.url + path).status_code == 404
    names = {key for key in samples(api) if "/nothing" in str(key)}
    assert names == set()


def test_readiness_checks_the_database_and_triton(api, server, tmp_path):
    ready = httpx.get(f"{api.url}/readyz")
    assert ready.json() == {"database": "ok", "triton": "none"}
    for address, status in ((server.address, 200), ("127.0.0.1:9", 503)):
        log = tmp_path / "other.log"
        with ApiProcess(tmp_path / "other.db", log=log, triton=address) as other:
            answer = httpx.get(f"{other.url}/readyz")
            assert answer.status_code == status
            if status == 503:
                assert answer.json()["type"] == "urn:chirpwatch:not-ready"
                assert "127.0.0.1:9" in answer.json()["detail"]
            # The service still answers.
            assert httpx.get(f"{other.url}/healthz").status_code == 200


def events(lines):
    """Data of the server-sent events named `runs`, in order."""
    name = None
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and name == "runs":
            yield json.loads(line.removeprefix("data: "))


def test_changes_are_pushed_and_do_not_delay_the_services_end(api):
    with api.client() as client:
        client.put_run("old", RUN)
        with httpx.stream("GET", f"{api.url}/v1/live", timeout=10) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            told = events(response.iter_lines())
            assert next(told) == {"old": 0}
            client.put_run("new", RUN)
            assert next(told) == {"new": 0}
            client.put_stream("old", "zl", ZERO_LAG)
            assert next(told) == {"old": 1}
            begin = time.monotonic()
            ending = threading.Thread(target=api.stop)
            ending.start()
            assert list(told) == []
            ending.join()
            assert time.monotonic() - begin < 2.5


def test_a_disconnected_listener_is_removed(api):
    def listeners():
        return samples(api)["chirpwatch_listeners",]

    with api.client() as client:
        client.put_run("one", RUN)
        for _ in range(3):
            with httpx.stream("GET", f"{api.url}/v1/live", timeout=10) as response:
                told = events(response.iter_lines())
                assert next(told) == {"one": 0}
                assert listeners() == 1
            deadline = time.monotonic() + 5
            while listeners() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert listeners() == 0


def test_an_unchanged_answer_is_304(api):
    with api.client() as client:
        client.put_run("one", RUN)
        client.put_block("one", 0, block(slide(4.0, [(9, 0.5, 1.0)])))
        for question in (
            "",
            "/far?statistic=1",
            "/ifar",
            "/background",
            "/streams",
            "/export.hdf5",
        ):
            address = f"{api.url}/v1/runs/one{question}"
            first = httpx.get(address).raise_for_status()
            tag = first.headers["etag"]
            again = httpx.get(address, headers={"If-None-Match": f'"other", {tag}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
            client.update_run("one", RunUpdate(throughput=float(len(question) + 1)))
            changed = httpx.get(address, headers={"If-None-Match": tag})
            assert changed.status_code == 200
            assert changed.headers["etag"] != tag
    # An unknown run is answered with 404, whatever the client's ETag.
    missing = httpx.get(f"{api.url}/v1/runs/two", headers={"If-None-Match": tag})
    assert missing.status_code == 404
