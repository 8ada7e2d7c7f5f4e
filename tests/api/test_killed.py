"""The results service is killed during ingest: nothing is lost or counted twice."""

import os
import random
import signal
import threading
import time

import pytest
from sqlalchemy import create_engine, text

from chirpwatch.api.client import ApiUnavailable
from chirpwatch.api.contract.injection_set import InjectionSet
from chirpwatch.api.process import ApiProcess
from tests.builders import (
    RUN,
    STRIDE,
    ZERO_LAG,
    block,
    chunk,
    drawn,
    injected,
    slide,
)

KILLS = 50
STREAM_CHUNK = 8
"""Strides of a chunk: few, so that there are many transactions to interrupt."""


class Writer(threading.Thread):
    """Sends each request until it is acknowledged; keeps an unexpected error."""

    def __init__(self, client, puts, stop):
        super().__init__(daemon=True)
        self.client, self.puts, self.stop = client, puts, stop
        self.sent, self.repeated, self.fault = 0, 0, None

    def run(self):
        try:
            for put in self.puts:
                if self.stop.is_set():
                    return
                while not self.insist(put):
                    time.sleep(0.01)
                self.sent += 1
        except Exception as error:  # raised by the test
            self.fault = error

    def insist(self, put):
        try:
            # Stored before the answer was lost: repeating the request changes nothing.
            self.repeated += not put(self.client)
        except ApiUnavailable:
            return False
        return True


def chunks(stream):
    number = 0
    while True:
        body = chunk(number, [(number + 0.5, float(number))], size=STREAM_CHUNK)
        yield lambda client, n=number, b=body: client.put_chunk("run", stream, n, b)
        number += 1


def blocks(run):
    number = 0
    while True:
        events = [(20 + i, 0.5, float(i)) for i in range(50)]
        body = block(slide(4.0, events, valid=[(0, 1024)]), number=number)
        yield lambda client, n=number, b=body: client.put_block(run, n, b)
        number += 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_under_ingest_lose_nothing_and_count_nothing_twice(
    new_database, tmp_path
):
    url, log = new_database(), tmp_path / "api.log"
    dice = random.Random(1)
    stop = threading.Event()
    with ApiProcess(url, log=log) as first:
        port, token = int(first.url.rsplit(":", 1)[1]), first.token
        client = first.client()
        client.put_run("run", RUN)
        client.put_run("other", RUN)
        client.put_stream("run", "zl", ZERO_LAG)
        client.put_injections("run", "set", InjectionSet(injections=[drawn(0, 2.0)]))
        client.put_stream("run", "inj", injected("set"))
    writers = [
        Writer(client, puts, stop)
        for puts in (chunks("zl"), chunks("inj"), blocks("run"), blocks("other"))
    ]
    for writer in writers:
        writer.start()
    for _ in range(KILLS):
        process = ApiProcess(url, port=port, log=log, token=token).__enter__()
        # At a random point of the writers' work.
        time.sleep(dice.uniform(0.05, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.stop()
    with ApiProcess(url, port=port, log=log, token=token):
        # Some requests without a kill.
        time.sleep(0.5)
        stop.set()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive()
            assert writer.fault is None
        zero_lag, injections, background, other = (writer.sent for writer in writers)
        assert min(zero_lag, injections, background, other) > 0
        assert zero_lag + injections + background + other > KILLS
        status = client.run("run")
        assert (status.zero_lag.chunks, status.zero_lag.events) == (zero_lag, zero_lag)
        assert status.zero_lag.livetime == zero_lag * STREAM_CHUNK * STRIDE / 1e9
        assert status.injections.chunks == injections
        assert status.background.blocks == background
        assert status.background.events == 50 * background
        assert status.background.livetime == 128.0 * background
        assert [b.number for b in client.blocks("run")] == list(range(background))
        assert client.far("run", 25.0).count == 25 * background
        assert client.run("other").background.events == 50 * other
    engine = create_engine(url if "://" in url else f"sqlite:///{url}")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT count(*) FROM events")).scalar()
        assert rows == zero_lag + injections
    print(
        f"{KILLS} kills; {sum(w.sent for w in writers)} requests acknowledged, of "
        f"which {sum(w.repeated for w in writers)} had been stored before a kill"
    )
