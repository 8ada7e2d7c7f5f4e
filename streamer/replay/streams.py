"""Sends a job's scores to the API: at zero-lag, or with an injection set."""

from typing import Any

from numpy.typing import NDArray

from chirpwatch.api.contract.fields import Kind
from chirpwatch.api.contract.requests import Stream
from chirpwatch.clustering import CLUSTER_LENGTH
from chirpwatch.streamer.chunks import Chunker
from chirpwatch.streamer.client import Scores
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.replay.jobs import SequenceJob
from chirpwatch.streamer.snippets import Loudest


class JobStream:
    """A stream of a job's scores; each chunk is sent once its events are decided.

    Args:
        run: Identifier of the run.
        job: The job.
        set_name: Name of the injection set in the strain; None for zero-lag.
        outbox: Sends the chunks.
        loudest: Collects the strain around the loudest zero-lag events.
    """

    def __init__(
        self,
        run: str,
        job: SequenceJob,
        set_name: str | None,
        outbox: Outbox,
        loudest: Loudest,
    ) -> None:
        geometry = job.geometry
        self._loudest = loudest
        self._run, self._job, self._set_name, self._outbox = run, job, set_name, outbox
        kind: Kind = "zero_lag" if set_name is None else "injections"
        shifts = dict(zip(geometry.ifos, job.shifts, strict=True))
        name = "_".join(f"{shift:g}".replace(".", "p") for shift in job.shifts)
        segment = job.segment.name.replace(".", "p")
        self._name = set_name or f"{segment}_{kind}_{name}"
        self._chunker = Chunker(geometry, job.t0_ns)
        self._number = 0
        outbox.put_stream(
            run,
            self._name,
            Stream(
                kind=kind,
                shifts=shifts,
                segment=job.segment.name,
                injection_set=set_name,
                cluster_length=CLUSTER_LENGTH,
            ),
        )

    def push(self, scores: Scores) -> None:
        """Take the next scores of the job's sequence."""
        score, delay = self._select(scores)
        self._chunker.push(score, delay, scores.valid)
        self._send(last=False)

    def finish(self) -> None:
        """End the stream."""
        self._chunker.finish()
        self._send(last=True)

    def _select(self, scores: Scores) -> tuple[NDArray[Any], NDArray[Any]]:
        """Score and delay of this stream's zero-lag row or injection set, [strides]."""
        if self._set_name is None:
            return scores.score[0], scores.delay[0]
        return self._job.foreground.scores(self._set_name, scores)

    def _send(self, last: bool) -> None:
        chunker = self._chunker
        if chunker.decided <= chunker.taken:
            return
        chunk = chunker.take(chunker.decided, last)
        if self._set_name is None:
            for event in chunk.events:
                self._loudest.offer(event.statistic, event.time_ns, self._job.segment)
        self._outbox.put_chunk(self._run, self._name, self._number, chunk)
        self._number += 1
