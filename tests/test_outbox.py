"""Results wait on disk while the API is away, and are delivered once it is there."""

from pathlib import Path

import pytest

from api.client import ApiClient
from api.process import ApiProcess
from api.schema import Chunk, Event, GeometryBody, Run, RunUpdate, Stream
from chirpwatch.errors import ApiError
from chirpwatch.geometry import Geometry
from streamer.outbox import Outbox

GEOMETRY = Geometry()
NOWHERE = "http://127.0.0.1:1"


def run(model: str = "0123456789abcdef") -> Run:
    return Run(
        name="test",
        model=model,
        geometry=GeometryBody.of(GEOMETRY),
        simulated=True,
        data="made up",
    )


def chunk(number: int, last: bool = False) -> Chunk:
    stride_ns = 125_000_000
    start_ns = 1262304008_000_000_000 + number * 100 * stride_ns
    return Chunk(
        start_ns=start_ns,
        stride_ns=stride_ns,
        valid=[True] * 100,
        scores=None,
        events=[Event(time_ns=start_ns - 10**9, statistic=number)],
        last=last,
    )


def fill(outbox: Outbox, name: str = "run") -> None:
    outbox.put_run(name, run())
    outbox.put_stream(
        name,
        "slide",
        Stream(
            kind="background",
            shifts={"H1": 0.0, "L1": 4.0},
            segment="1262304000-100",
            injection_set=None,
        ),
    )
    for number in range(3):
        outbox.put_chunk(name, "slide", number, chunk(number, last=number == 2))
    outbox.update_run(name, RunUpdate(state="complete"))


def test_results_wait_and_are_delivered_in_order_by_another_process(
    tmp_path: Path,
) -> None:
    with ApiClient(NOWHERE) as client:
        outbox = Outbox(tmp_path / "outbox", client)
        fill(outbox)
        assert outbox.deliver() == 6
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "log") as api:
        with api.client() as client:
            outbox = Outbox(tmp_path / "outbox", client)
            assert outbox.deliver() == 0
            status = client.run("run")
        assert status.state == "complete"
        assert status.background.events == 3
        assert status.background.livetime == 300 / 8
    assert not list((tmp_path / "outbox").iterdir())


def test_new_results_come_after_those_that_wait(tmp_path: Path) -> None:
    with ApiClient(NOWHERE) as client:
        fill(Outbox(tmp_path / "outbox", client), "first")
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "log") as api:
        with api.client() as client:
            fill(Outbox(tmp_path / "outbox", client), "second")
            assert {one.id for one in client.runs()} == {"first", "second"}


def test_a_result_delivered_twice_changes_nothing(tmp_path: Path) -> None:
    """As when the process dies between the API's answer and the file's removal."""
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "log") as api:
        with api.client() as client:
            for _ in range(2):
                fill(Outbox(tmp_path / "outbox", client))
            assert client.run("run").background.events == 3


def test_a_refused_result_is_kept_with_the_reason(tmp_path: Path) -> None:
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "log") as api:
        with api.client() as client:
            outbox = Outbox(tmp_path / "outbox", client)
            outbox.put_run("run", run())
            with pytest.raises(ApiError, match=r"409.*kept in .*refused"):
                outbox.put_run("run", run(model="fedcba9876543210"))
            # It does not stand in the way of others.
            outbox.update_run("run", RunUpdate(state="failed", message="test"))
            assert client.run("run").state == "failed"
    assert [path.suffix for path in (tmp_path / "outbox").iterdir()] == [".refused"]
