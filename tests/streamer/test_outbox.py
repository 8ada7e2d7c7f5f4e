"""The outbox: results wait on disk while the API is down, and are sent later."""

import os
import signal
import time
from pathlib import Path

import pytest

from chirpwatch.api.client import ApiClient
from chirpwatch.api.contract.requests import (
    Block,
    BlockSlide,
    GeometryBody,
    Run,
    RunUpdate,
)
from chirpwatch.api.process import ApiProcess
from chirpwatch.errors import ApiError
from chirpwatch.geometry import Geometry
from chirpwatch.streamer.outbox import Outbox

GEOMETRY = Geometry()
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Name of a run for this test only."""
    return str(request.node.name)[-50:].replace("_", "-")


def run(model: str = "0123456789abcdef") -> Run:
    return Run(
        name="test",
        model=model,
        geometry=GeometryBody.of(GEOMETRY),
        simulated=True,
        data="made up",
    )


def block(number: int) -> Block:
    return Block(
        start_ns=1262304000_000_000_000 + number * 100 * 125_000_000,
        strides=100,
        stride_ns=125_000_000,
        slides=[
            BlockSlide(
                shifts={"H1": 0.0, "L1": 4.0},
                valid=[[0, 100]],
                strides=[80],
                delays=[0.5],
                statistics=[float(number)],
            )
        ],
    )


def fill(outbox: Outbox, name: str) -> None:
    outbox.put_run(name, run())
    for number in range(3):
        outbox.put_block(name, number, block(number))
    outbox.update_run(name, RunUpdate(state="complete"))


def left(directory: Path) -> list[str]:
    """Files in the outbox, except its lock."""
    files = (directory / "outbox").iterdir()
    return sorted(path.name for path in files if path.name != ".lock")


def test_results_wait_and_are_delivered_in_order_by_another_process(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    with ApiClient(NOWHERE) as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            fill(outbox, name)
            assert outbox.deliver() == 5
    with api.client() as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            assert outbox.deliver() == 0
        status = client.run(name)
    assert status.state == "complete"
    assert status.background.events == 3
    assert status.background.livetime == 300 / 8
    assert left(tmp_path) == []


def test_new_results_come_after_those_that_wait(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    with ApiClient(NOWHERE) as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            fill(outbox, f"{name}-1")
    with api.client() as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            fill(outbox, f"{name}-2")
            assert outbox.deliver() == 0
        runs = {one.id for one in client.runs().runs if one.id.startswith(name)}
        assert runs == {f"{name}-1", f"{name}-2"}


def test_a_result_delivered_twice_changes_nothing(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    """As if the process died between the API's answer and the file's removal."""
    with api.client() as client:
        for _ in range(2):
            with Outbox(tmp_path / "outbox", client) as outbox:
                fill(outbox, name)
                assert outbox.deliver() == 0
        assert client.run(name).background.events == 3


def test_a_refused_result_is_kept_and_does_not_block_others(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    with api.client() as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            outbox.put_run(name, run())
            outbox.put_run(name, run(model="fedcba9876543210"))
            outbox.update_run(name, RunUpdate(state="failed", message="test"))
            with pytest.raises(ApiError, match=r"409.*kept in .*refused"):
                outbox.deliver()
        assert client.run(name).state == "failed"
    assert [Path(name).suffix for name in left(tmp_path)] == [".refused"]


def test_results_of_a_lost_database_do_not_fail_another_run(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    with ApiClient(NOWHERE) as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            fill(outbox, f"{name}-lost")
    for path in sorted((tmp_path / "outbox").glob("*.json"))[:1]:
        path.unlink()  # the run's registration, which the other database had
    with api.client() as client, Outbox(tmp_path / "outbox", client) as outbox:
        fill(outbox, f"{name}-new")
        assert outbox.deliver() == 0
        assert client.run(f"{name}-new").background.events == 3
        assert len(outbox.refused) == 4


def test_a_wrong_token_loses_nothing(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    with ApiClient(api.url, "wrong") as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            fill(outbox, name)
            with pytest.raises(ApiError, match=r"401.*wait on disk"):
                outbox.deliver()
    with api.client() as client, Outbox(tmp_path / "outbox", client) as outbox:
        assert outbox.deliver() == 0
        assert client.run(name).background.events == 3


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    with ApiClient(NOWHERE) as client, Outbox(tmp_path, client):
        with pytest.raises(ApiError, match="in use by another run"):
            Outbox(tmp_path, client).__enter__()
    with ApiClient(NOWHERE) as client, Outbox(tmp_path, client):
        pass


def test_a_run_whose_process_died_is_marked_as_failed(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    with api.client() as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            outbox.put_run(name, run())
            assert outbox.deliver() == 0
        assert client.run(name).state == "running"
        with Outbox(tmp_path / "outbox", client) as outbox:
            assert outbox.deliver() == 0
        status = client.run(name)
    assert status.state == "failed"
    assert "ended before the run did" in (status.message or "")


def test_an_api_that_hangs_does_not_block(
    api: ApiProcess, name: str, tmp_path: Path
) -> None:
    with ApiClient(api.url, api.token, timeout=2) as client:
        with Outbox(tmp_path / "outbox", client) as outbox:
            os.kill(api.pid, signal.SIGSTOP)
            begin = time.monotonic()
            fill(outbox, name)
            assert time.monotonic() - begin < 1
            os.kill(api.pid, signal.SIGCONT)
            assert outbox.deliver() == 0
