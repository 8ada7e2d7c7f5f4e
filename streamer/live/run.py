"""A live search's run in the results API."""

import logging
from functools import partial
from pathlib import Path

from chirpwatch.api.contract.requests import Chunk, Run, RunUpdate, Strain, Stream
from chirpwatch.clustering import CLUSTER_LENGTH
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.chunks import Chunker
from chirpwatch.streamer.live.disk import Disk
from chirpwatch.streamer.live.state import LiveState
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.run_ids import new_run_id

DAY = 86_400
"""Length of a stream, s: each GPS day has a stream of its own."""

log = logging.getLogger("chirpwatch.live")


class LiveRun:
    """Sends a live run's scores and strain, and stores how far it got.

    The state is stored before each chunk is sent. A run belongs to one model: a search
    in the same directory with the same model continues the run.

    Args:
        state: State of an earlier process, or None.
        path: File of the state.
        body: Description of the run, used if a new run begins.
        outbox: Sends the results.
        disk: Retries writes while the disk is full.

    Attributes:
        state: How far the run got.
    """

    def __init__(
        self,
        state: LiveState | None,
        path: Path,
        body: Run,
        outbox: Outbox,
        disk: Disk,
    ) -> None:
        self._path, self._outbox, self._disk = path, outbox, disk
        self._ifos = body.geometry.ifos
        if state is not None and state.model == body.model:
            self.state = state
            self._continue()
        else:
            until_ns = state.until_ns if state is not None else 0
            self.state = LiveState(new_run_id("live-"), body.model, until_ns)
            self._disk.write(partial(outbox.put_run, self.id, body))
            self._disk.write(partial(self.state.write, path))
            log.info("run %s begins, model %s", self.id, body.model)

    def _continue(self) -> None:
        state = self.state
        if state.chunk is not None:
            # The earlier process may have ended before it sent this.
            self._put_chunk(Chunk.model_validate(state.chunk))
        self.update(RunUpdate(state="running"))
        log.info("run %s continues, model %s", self.id, state.model)

    @property
    def id(self) -> str:
        """The run's identifier."""
        return self.state.run

    def update(self, update: RunUpdate) -> None:
        """Send a change of the run's state, message or latency."""
        self._disk.write(partial(self._outbox.update_run, self.id, update))

    def send_strain(self, start_ns: int, strain: Strain) -> None:
        """Send strain that starts at a GPS time, ns."""
        self._disk.write(partial(self._outbox.put_strain, self.id, start_ns, strain))

    def send_scores(self, chunker: Chunker, until: int) -> None:
        """Send the scores of the strides before ``until``, in a chunk for each day."""
        day_ns = DAY * NANOSECONDS
        while chunker.taken < until:
            start_ns = chunker.edge_ns(chunker.taken)
            next_day_ns = (start_ns // day_ns + 1) * day_ns
            # The first stride whose right edge lies in the next day.
            stride = chunker.strides_until(next_day_ns - 1)
            self._send(chunker.take(min(until, max(chunker.taken + 1, stride))))

    def _send(self, chunk: Chunk) -> None:
        day = chunk.start_ns // NANOSECONDS // DAY * DAY
        stream = f"zero_lag-{day}"
        number = self.state.number + 1 if stream == self.state.stream else 0
        if number == 0:
            body = Stream(
                kind="zero_lag",
                shifts=dict.fromkeys(self._ifos, 0.0),
                segment=f"{day}-{DAY}",
                cluster_length=CLUSTER_LENGTH,
            )
            self._disk.write(partial(self._outbox.put_stream, self.id, stream, body))
        self.state = self.state.after(
            stream, number, chunk.stop_ns, chunk.model_dump(mode="json")
        )
        self._disk.write(partial(self.state.write, self._path))
        self._put_chunk(chunk)

    def _put_chunk(self, chunk: Chunk) -> None:
        place = self.id, self.state.stream, self.state.number
        self._disk.write(partial(self._outbox.put_chunk, *place, chunk))
