"""Logs of long-running commands, back-off, locks, and waiting for children."""

import json
import logging
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chirpwatch import logs
from chirpwatch.backoff import Backoff
from chirpwatch.errors import ApiError
from chirpwatch.lock import locked
from chirpwatch.process import wait_until_ready

log = logging.getLogger("chirpwatch.live")


@pytest.fixture(autouse=True)
def as_before():
    names = (logs.ROOT, logs.SERVER)
    before = {
        name: (one.handlers[:], one.level, one.propagate)
        for name in names
        for one in [logging.getLogger(name)]
    }
    yield
    for name, (handlers, level, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def test_a_line_of_text_has_time_level_and_name(capsys, monkeypatch):
    logs.set_up("text")
    monkeypatch.setattr("time.time", lambda: 1_795_815_600.25)
    monkeypatch.setattr("time.time_ns", lambda: 1_795_815_600_250_000_000)
    log.info("gap of %d s\nwhy", 3)
    logging.getLogger("chirpwatch").warning("bye")
    log.debug("nobody sees this")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "2026-11-27T21:40:00Z INFO live: gap of 3 s",
        "    why",
        "2026-11-27T21:40:00Z WARNING chirpwatch: bye",
    ]


def test_a_line_of_json_has_the_fields_as_well(capsys):
    logs.set_up("text")
    # The last configuration counts, and no line is repeated.
    logs.set_up("json")
    log.info("gap of %d s\nwhy", 3, extra={"gps": 7, "reason": "no frame of L1"})
    logging.getLogger("uvicorn.error").warning("database: locked")
    try:
        raise ApiError("away")
    except ApiError:
        log.exception("no")
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("time").startswith("20")
    assert first == {
        "level": "INFO",
        "logger": "live",
        "message": "gap of 3 s\nwhy",
        "gps": 7,
        "reason": "no frame of L1",
    }
    assert (second["logger"], second["message"]) == (
        "uvicorn.error",
        "database: locked",
    )
    assert third["exception"].endswith("ApiError: away")


@given(st.floats(0.1, 10), st.floats(1, 100), st.integers(1, 30))
def test_back_off_doubles_up_to_its_limit_and_resets(first, factor, count):
    backoff = Backoff(first, last := first * factor)
    for _ in range(2):
        pauses = [backoff.next() for _ in range(count)]
        expected = [min(first * 2**number, last) for number in range(count)]
        assert pauses == pytest.approx(expected)
        backoff.reset()


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path, refusal = tmp_path / ".lock", ApiError("in use")
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from chirpwatch.errors import ApiError\nfrom chirpwatch.lock import locked\n"
        "with locked(Path(sys.argv[1]), ApiError('')):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ApiError, match="in use"), locked(path, refusal):
            pass
        other.kill()
        other.wait()
    with locked(path, refusal):
        pass
    with locked(path, refusal):
        pass


def test_a_child_is_waited_for_until_it_is_ready_or_the_time_is_over():
    answers = iter([None, None, "ready"])
    assert wait_until_ready(lambda: next(answers), 10) == "ready"
    begin = time.monotonic()
    assert wait_until_ready(lambda: None, 0.2) is None
    assert 0.2 <= time.monotonic() - begin < 5

    def look():
        raise ApiError("it ended")

    with pytest.raises(ApiError, match="it ended"):
        wait_until_ready(look, 10)
