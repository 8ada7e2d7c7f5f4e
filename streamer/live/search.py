"""The live search: seconds of strain in, chunks of scores and candidates out."""

import contextlib
import errno
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from chirpwatch.api.client import ApiClient
from chirpwatch.api.contract.requests import (
    Chunk,
    Event,
    GeometryBody,
    Run,
    RunUpdate,
    Stream,
    ended_by,
    one_line,
)
from chirpwatch.clustering import (
    CLUSTER_LENGTH,
    Clusterer,
    ScoreEvent,
)
from chirpwatch.errors import (
    ApiError,
    ChirpwatchError,
    ModelError,
    StatisticsError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.client import (
    Detector,
    Scores,
)
from chirpwatch.streamer.live.alerts import Teller
from chirpwatch.streamer.live.background import (
    Noise,
    find,
)
from chirpwatch.streamer.live.channels import Channels
from chirpwatch.streamer.live.coincide import (
    Assembler,
    Gap,
    Second,
    Together,
    blocks,
)
from chirpwatch.streamer.live.decimate import Decimator
from chirpwatch.streamer.live.frames import (
    FrameDirectory,
    FrameReader,
    Reading,
)
from chirpwatch.streamer.live.ledger import (
    Candidate,
    Ledger,
)
from chirpwatch.streamer.live.metrics import LiveMetrics
from chirpwatch.streamer.live.sequence import LiveSequence
from chirpwatch.streamer.live.state import LiveState
from chirpwatch.streamer.live.summary import Summary
from chirpwatch.streamer.live.triggers import (
    Trigger,
    TriggerFinder,
)
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.snippets import (
    AFTER_LENGTH,
    BEFORE_LENGTH,
    strain_body,
)

POLL = 0.02
"""Time between two looks at the directories, s."""

BLOCK_LENGTH = 4
"""Seconds that are scored at once, where so many wait."""

CHUNK_LENGTH = 4.0
"""Scores in a chunk, s, once their events are decided."""

DAY = 86_400
"""A stream holds the scores of a GPS day, s."""

HISTORY = 90
"""Seconds that are kept, for a sequence with another model to begin in."""

REPORT_LENGTH = 5.0
"""Time between two reports of what happened, s."""

FULL_LENGTH = 1.0
"""Time between two tries to write to a full disk, s."""

NOISE_LENGTH = 60.0
"""Time between two looks for background, s; where there is some, ten times that."""


T = TypeVar("T")


@dataclass(frozen=True)
class LiveSettings:
    """What a live search does.

    Attributes:
        frames: Directory with a directory of frames for each detector.
        channels: What is read of each detector's frames.
        patience: Longest wait for a frame that others have, s.
        far_per_year: False-alarm rate of a candidate, per Julian year.
        background_run: Run whose background ranks; none: the best there is.
        simulated: Whether the strain is simulated.
        directory: Where the state is kept.
    """

    frames: Path
    channels: dict[str, Channels]
    patience: float
    far_per_year: float
    background_run: str | None
    simulated: bool
    directory: Path


@dataclass
class _Stretch:
    """A gap-free stretch under way.

    Attributes:
        decimator: Gives strain of the analysis' rate.
        sequence: Scores it.
        clusterer: Finds its events.
        t0_ns: GPS time of the first sample that is scored, ns; known with the first.
        spotter: Finds its candidates.
        score, valid: Of the strides that are not sent yet.
        sent: Strides that were sent, or need not be.
        scored: Strides that were scored.
        recent: The newest strain, float32 [ifos, samples].
        shown: Times of candidates whose strain is to be sent, GPS ns.
    """

    decimator: Decimator
    sequence: LiveSequence
    clusterer: Clusterer
    t0_ns: int = 0
    spotter: TriggerFinder | None = None
    score: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.float32))
    valid: NDArray[Any] = field(default_factory=lambda: np.empty(0, bool))
    events: list[tuple[int, Event]] = field(default_factory=list)
    sent: int = 0
    scored: int = 0
    recent: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    shown: list[int] = field(default_factory=list)


class Live:
    """A live search.

    Args:
        settings: What it does.
        address: gRPC address of the Triton server.
        client: The results API, to be asked.
        outbox: The way to it.
        ledger: What was told to whom.
        tellers: They tell.
        metrics: What Prometheus is told.
        say: Told, for people, what happens.
    """

    def __init__(
        self,
        settings: LiveSettings,
        address: str,
        client: ApiClient,
        outbox: Outbox,
        ledger: Ledger,
        tellers: Sequence[Teller],
        metrics: LiveMetrics,
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._address, self._client = settings, address, client
        self._outbox, self._ledger, self._tellers = outbox, ledger, tellers
        self._metrics, self._say = metrics, say
        self._state_path = settings.directory / "live.json"
        self._stretch: _Stretch | None = None
        self._history: deque[Together] = deque(maxlen=HISTORY)
        self._noise: Noise | None = None
        self._looked = self._reported = -float("inf")
        self._ending = False
        self._begin_run(LiveState.read(self._state_path))

    @property
    def run_id(self) -> str:
        """The run."""
        return self._state.run

    def end(self) -> None:
        """Ask the search to end, soon; may be called by a signal's handler."""
        # An event's lock may be held by what the signal interrupts.
        self._ending = True

    def _wait(self, length: float) -> bool:
        """Wait for a time, s, or until the search is to end; whether it is."""
        until = time.monotonic() + length
        while not self._ending and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL))
        return self._ending

    def run(self) -> None:
        """Search until it is ended.

        Raises:
            ChirpwatchError: The server was away for too long, or the API refused a
                result.
        """
        ifos = self._geometry.ifos
        assembler = Assembler(ifos, self._settings.patience)
        directories = {
            ifo: FrameDirectory(self._settings.frames / ifo, ifo) for ifo in ifos
        }
        try:
            with FrameReader(len(ifos)) as reader:
                told: list[Together | Gap] = []
                while not self._ending:
                    # What is missing is what was not there when this was looked for,
                    # however long reading what was there takes.
                    looked = time.monotonic()
                    readings = self._look(reader, directories, assembler)
                    # While those are read, what came before is scored.
                    for one in blocks(told, BLOCK_LENGTH):
                        self._take(one)
                    self._read(reader, readings, assembler)
                    told = list(assembler.ready(looked))
                    self._outbox.check()
                    self._look_for_noise()
                    self._metrics.waiting.set(len(self._outbox.waiting()))
                    if looked - self._reported > REPORT_LENGTH:
                        self._reported = looked
                        self._report()
                    if not readings and not told:
                        self._wait(POLL)
            for one in blocks(told, BLOCK_LENGTH):
                self._take(one)
            self._end_stretch()
            self._report()
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._outbox.update_run(self._state.run, ended_by(error))
            raise
        self._update(RunUpdate(state="complete"))

    def _stored(self, store: Callable[[], T]) -> T:
        """Do what writes to the disk; where that is full, wait until there is room.

        Frames wait meanwhile where they are. What is written once is whole or not
        there, so that it can be tried again.
        """
        said = False
        while True:
            try:
                return store()
            except (OSError, sqlite3.OperationalError) as error:
                if not _is_full(error):
                    raise
                if not said:
                    self._say(f"waiting for room on the disk: {error}")
                    said = True
                if self._wait(FULL_LENGTH):
                    raise ChirpwatchError(
                        f"{self._settings.directory}: ended while the disk was full "
                        f"({error}); the same command goes on from where it was"
                    ) from None

    def _report(self) -> None:
        update = self._summary.update()
        if update is not None:
            self._update(update)

    def _update(self, update: RunUpdate) -> None:
        self._stored(partial(self._outbox.update_run, self._state.run, update))

    # Runs, one for each model

    def _begin_run(self, known: LiveState | None = None) -> None:
        """Go on with the run that is known, or begin one for the served model."""
        self._summary = Summary()
        self._detector = Detector(self._address)
        self._geometry: Geometry = self._detector.geometry
        model = self._detector.model
        self._noise = self._find_noise()
        if known is not None and known.model == model:
            self._state = known
            if known.chunk is not None:
                chunk = Chunk.model_validate(known.chunk)
                chunk_place = known.run, known.stream, known.number
                self._stored(partial(self._outbox.put_chunk, *chunk_place, chunk))
            self._update(RunUpdate(state="running"))
            return
        until_ns = known.until_ns if known is not None else 0
        name = f"live-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        run = f"{name}-{secrets.token_hex(4)}"
        self._state = LiveState(run, model, until_ns)
        body = Run(
            name=one_line(f"live, {self._settings.frames.name}"),
            model=model,
            geometry=GeometryBody.of(self._geometry),
            simulated=self._settings.simulated,
            data=one_line(f"frames in {self._settings.frames.name}"),
            background_run=self._noise.run if self._noise else None,
        )
        self._stored(partial(self._outbox.put_run, run, body))
        self._stored(partial(self._state.write, self._state_path))

    def _find_noise(self) -> Noise | None:
        """The background of the served model, or what is known of it from before."""
        self._looked = time.monotonic()
        path = self._settings.directory / "background.npz"
        of = self._detector.model, self._geometry.digest
        try:
            noise = find(self._client, *of, self._settings.background_run)
            if noise is not None:
                with contextlib.suppress(OSError):
                    noise.save(path, *of)
        except ApiError as error:
            noise = Noise.load(path, *of)
            self._say(f"the results service cannot be asked for background: {error}")
        self._threshold = np.inf
        try:
            if noise is not None:
                self._threshold = noise.threshold(self._settings.far_per_year)
        except StatisticsError as error:
            # Scores go on without; candidates cannot be ranked.
            self._say(f"no background to rank candidates by: {error}")
            noise = None
        self._metrics.background.set(noise.livetime if noise else 0)
        return noise

    def _look_for_noise(self) -> None:
        wait = NOISE_LENGTH * (10 if self._noise else 1)
        if time.monotonic() - self._looked > wait:
            self._noise = self._find_noise()

    # Frames

    def _look(
        self,
        reader: FrameReader,
        directories: dict[str, FrameDirectory],
        assembler: Assembler,
    ) -> list[tuple[str, Reading]]:
        """Begin to read what is new."""
        new = [
            (ifo, file, again)
            for ifo, directory in directories.items()
            for file, again in directory.new()
        ]
        if assembler.next is None and new:
            # From where on every detector has something.
            firsts = [
                min((one.gps for ifo, one, _ in new if ifo == name), default=None)
                for name in directories
            ]
            known = [first for first in firsts if first is not None]
            if len(known) == len(firsts):
                assembler.next = max(known)
        now = time.time()
        readings = []
        for ifo, file, again in new:
            if again and self._was_read(ifo, file.gps, assembler):
                continue
            self._metrics.stages.labels("noticed").observe(max(0, now - file.arrived))
            reading = reader.submit(file, self._settings.channels[ifo])
            readings.append((ifo, reading))
        return readings

    def _read(
        self,
        reader: FrameReader,
        readings: Sequence[tuple[str, Reading]],
        assembler: Assembler,
    ) -> None:
        """Offer what was read."""
        for ifo, reading in readings:
            file = reading.file
            try:
                frame = reader.result(reading)
            except StrainError as error:
                # It may be written once more; else its second is missing.
                self._count(ifo, "unreadable")
                self._say(str(error))
                continue
            self._metrics.stages.labels("read").observe(
                max(0, time.time() - file.arrived)
            )
            self._count(ifo, "read")
            for number in range(file.length):
                second = _second(frame.strain[number], frame.on[number], file.arrived)
                before = assembler.counts.copy()
                assembler.offer(ifo, file.gps + number, second, time.monotonic())
                for what in assembler.counts - before:
                    self._count(ifo, what)
                if second.reason:
                    self._count(ifo, second.reason.replace(" ", "_"))

    def _was_read(self, ifo: str, gps: int, assembler: Assembler) -> bool:
        """Whether a frame that was written anew was read before, and so counts not."""
        if not assembler.has(ifo, gps):
            return False
        self._count(ifo, "twice")
        return True

    def _count(self, ifo: str, what: str) -> None:
        self._metrics.frames.labels(ifo, what).inc()

    # Seconds

    def _take(self, told: Sequence[Together] | Gap) -> None:
        if isinstance(told, Gap):
            self._end_stretch()
            self._history.clear()
            self._summary.gap(told)
            self._metrics.seconds.labels("gap").inc(told.length)
            self._metrics.newest.set(told.gps + told.length)
            self._say(f"gap of {told.length} s from GPS {told.gps}: {told.reason}")
            return
        now = time.time()
        for one in told:
            together = max(0, now - one.arrived)
            self._metrics.stages.labels("together").observe(together)
        self._history.extend(told)
        try:
            self._score(told)
        except ModelError as error:
            self._change_model(error)
        self._metrics.seconds.labels("analysed").inc(len(told))
        self._metrics.newest.set(told[-1].gps + 1)

    def _change_model(self, error: ModelError) -> None:
        """End the run, and score the last seconds with the model that is served now."""
        self._say(str(error))
        old = self._state
        self._stretch = None
        self._update(RunUpdate(state="complete", message=one_line(str(error))))
        # What was not sent of the old model's scores is scored by the new one.
        self._begin_run(replace(old, chunk=None))
        for second in self._history:
            self._score([second])

    def _score(self, block: Sequence[Together]) -> None:
        geometry = self._geometry
        if self._stretch is None:
            self._stretch = _Stretch(
                Decimator(geometry.sample_rate, geometry.stride_size),
                LiveSequence(self._detector, self._lost, self._wait),
                Clusterer(round(CLUSTER_LENGTH * geometry.inference_sampling_rate)),
            )
            self._metrics.sequences.inc()
        stretch = self._stretch
        try:
            parts = [stretch.decimator.push(one.strain) for one in block]
        except StrainError as error:
            # All are sampled alike, so that it is the first one's.
            self._end_stretch()
            self._say(str(error))
            if len(block) > 1:
                self._score(block[1:])
            return
        strain = np.concatenate(parts, axis=1)
        if stretch.spotter is None:
            skipped = stretch.decimator.skipped * NANOSECONDS // geometry.sample_rate
            stretch.t0_ns = block[0].gps * NANOSECONDS + skipped
            stretch.spotter = TriggerFinder(
                geometry, self._detector.longest_delay, stretch.t0_ns
            )
            stretch.sent = self._strides_until(stretch, self._state.until_ns)
            stretch.recent = strain[:, :0]
        scores = stretch.sequence.push(strain)
        now = time.time()
        for one in block:
            latency = max(0, now - one.arrived)
            self._metrics.stages.labels("scored").observe(latency)
            self._summary.scored(latency)
        spotted = stretch.spotter.push(
            scores.first,
            scores.score[0],
            scores.delay[0],
            scores.valid,
            self._threshold,
        )
        for candidate in spotted:
            self._tell(stretch, candidate, block[-1].arrived)
        self._collect(stretch, scores)
        self._show(stretch, strain)
        decided = stretch.clusterer.decided
        if decided - stretch.sent >= CHUNK_LENGTH * geometry.inference_sampling_rate:
            self._send(stretch, decided)

    def _lost(self, error: Exception) -> None:
        self._metrics.server_failures.inc()
        self._summary.failure(error)
        self._say(str(error))

    def _strides_until(self, stretch: _Stretch, until_ns: int) -> int:
        """Strides of a stretch whose right edges are no later than a time."""
        stride_ns = round(self._geometry.stride_length * NANOSECONDS)
        return max(0, (until_ns - stretch.t0_ns) // stride_ns)

    def _edge_ns(self, stretch: _Stretch, stride: int) -> int:
        stride_ns = round(self._geometry.stride_length * NANOSECONDS)
        return stretch.t0_ns + (stride + 1) * stride_ns

    # Results

    def _collect(self, stretch: _Stretch, scores: Scores) -> None:
        """Keep the scores, and the events that they decide."""
        skip = max(0, stretch.sent - scores.first)
        stretch.score = np.append(stretch.score, scores.score[0][skip:])
        stretch.valid = np.append(stretch.valid, scores.valid[skip:])
        stretch.scored = scores.first + len(scores.valid)
        self._keep(
            stretch,
            stretch.clusterer.push(scores.score[0], scores.delay[0], scores.valid),
        )

    def _keep(self, stretch: _Stretch, events: Sequence[ScoreEvent]) -> None:
        for event in events:
            if event.stride >= stretch.sent:
                time_ns = self._edge_ns(stretch, event.stride) - round(
                    event.delay * NANOSECONDS
                )
                body = Event(time_ns=time_ns, statistic=event.statistic)
                stretch.events.append((event.stride, body))

    def _show(
        self, stretch: _Stretch, strain: NDArray[Any], last: bool = False
    ) -> None:
        """Keep strain, and send that around the candidates that it is enough for."""
        rate = self._geometry.sample_rate
        size = round((BEFORE_LENGTH + AFTER_LENGTH + BLOCK_LENGTH + 8) * rate)
        stretch.recent = np.concatenate([stretch.recent, strain], axis=1)[:, -size:]
        end_ns = self._edge_ns(stretch, stretch.scored - 1)
        for time_ns in list(stretch.shown):
            # Samples from the merger to the end of what there is.
            after = (end_ns - time_ns) * rate // NANOSECONDS
            if after < AFTER_LENGTH * rate and not last:
                continue
            stretch.shown.remove(time_ns)
            merger = stretch.recent.shape[1] - after
            first = max(0, merger - round(BEFORE_LENGTH * rate))
            part = stretch.recent[:, first : merger + round(AFTER_LENGTH * rate)]
            start_ns = end_ns - (stretch.recent.shape[1] - first) * NANOSECONDS // rate
            series = dict(zip(self._geometry.ifos, part, strict=True))
            body = strain_body(rate, series)
            run = self._state.run
            self._stored(partial(self._outbox.put_strain, run, start_ns, body))

    def _send(self, stretch: _Stretch, until: int) -> None:
        """Send the scores of the strides before `until`, day by day."""
        for stop in self._days(stretch, until):
            count = stop - stretch.sent
            chunk = Chunk(
                start_ns=self._edge_ns(stretch, stretch.sent),
                stride_ns=round(self._geometry.stride_length * NANOSECONDS),
                valid=stretch.valid[:count].tolist(),
                # A score that is not valid may be no number.
                scores=np.where(stretch.valid, stretch.score, 0)[:count].tolist(),
                events=[event for stride, event in stretch.events if stride < stop],
            )
            day = chunk.start_ns // NANOSECONDS // DAY * DAY
            stream = f"zero_lag-{day}"
            number = self._state.number + 1 if stream == self._state.stream else 0
            run, outbox = self._state.run, self._outbox
            if number == 0:
                body = self._stream(day)
                self._stored(partial(outbox.put_stream, run, stream, body))
            self._state = self._state.after(
                stream, number, chunk.stop_ns, chunk.model_dump(mode="json")
            )
            self._stored(partial(self._state.write, self._state_path))
            self._stored(partial(outbox.put_chunk, run, stream, number, chunk))
            stretch.events = [one for one in stretch.events if one[0] >= stop]
            stretch.score, stretch.valid = stretch.score[count:], stretch.valid[count:]
            stretch.sent = stop

    def _days(self, stretch: _Stretch, until: int) -> Iterator[int]:
        """Where what is to be sent ends, and before that each end of a day."""
        while stretch.sent < until:
            begin_ns = self._edge_ns(stretch, stretch.sent)
            day_ns = (begin_ns // (DAY * NANOSECONDS) + 1) * DAY * NANOSECONDS
            # The first stride whose right edge is of the next day.
            stride = self._strides_until(stretch, day_ns - 1)
            yield min(until, max(stretch.sent + 1, stride))

    def _stream(self, day: int) -> Stream:
        return Stream(
            kind="zero_lag",
            shifts=dict.fromkeys(self._geometry.ifos, 0.0),
            segment=f"{day}-{DAY}",
            cluster_length=CLUSTER_LENGTH,
        )

    def _end_stretch(self) -> None:
        """End what is under way, and send all of it."""
        stretch, self._stretch = self._stretch, None
        if stretch is None or stretch.spotter is None:
            return
        edge_ns = self._edge_ns(stretch, stretch.scored - 1)
        for spotted in stretch.spotter.flush(edge_ns):
            self._tell(stretch, spotted, time.time())
        self._show(stretch, stretch.recent[:, :0], last=True)
        self._keep(stretch, stretch.clusterer.flush())
        self._send(stretch, stretch.scored)
        with stretch.sequence:
            pass

    def _tell(self, stretch: _Stretch, spotted: Trigger, arrived: float) -> None:
        """Write a candidate down, and have it told."""
        if self._noise is None:
            return
        rate = self._noise.far(spotted.statistic)
        candidate = Candidate(
            id=f"{self._state.run}-{spotted.time_ns}",
            run=self._state.run,
            time_ns=spotted.time_ns,
            statistic=spotted.statistic,
            far_per_year=rate.far_per_year,
            saturated=rate.saturated,
            background_run=self._noise.run,
            background_livetime=self._noise.livetime,
            model=self._state.model,
            ifos=self._geometry.ifos,
            simulated=self._settings.simulated,
        )
        if not self._stored(partial(self._ledger.add, candidate)):
            return
        stretch.shown.append(spotted.time_ns)
        self._metrics.candidates.inc()
        self._metrics.stages.labels("decided").observe(max(0, time.time() - arrived))
        for teller in self._tellers:
            teller.wake()
        limit = "≤ " if rate.saturated else ""
        self._say(
            f"candidate at GPS {spotted.time_ns / 1e9:.3f}, statistic "
            f"{spotted.statistic:.2f}, FAR {limit}{rate.far_per_year:.3g} per year"
        )


def _is_full(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def _second(strain: NDArray[Any], on: bool, arrived: float) -> Second:
    """A second of a frame, or why it is not to be analysed."""
    if not on:
        return Second(None, arrived, "off")
    if not np.isfinite(strain).all():
        return Second(None, arrived, "not finite")
    if strain.max() == strain.min():
        return Second(None, arrived, "stands still")
    return Second(strain, arrived)
