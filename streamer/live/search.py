"""The live search: seconds of strain in, scores and candidates out."""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from chirpwatch.api.client import ApiClient
from chirpwatch.api.contract.requests import (
    GeometryBody,
    Run,
    RunUpdate,
    ended_by,
)
from chirpwatch.errors import ModelError, ServerError, StrainError
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.live.alerts import Alerts
from chirpwatch.streamer.live.channels import Channels
from chirpwatch.streamer.live.coincide import CoincidentSecond, Gap, blocks
from chirpwatch.streamer.live.decimate import Decimator
from chirpwatch.streamer.live.disk import Disk
from chirpwatch.streamer.live.ending import POLL_LENGTH, Ending
from chirpwatch.streamer.live.frames import FrameReader
from chirpwatch.streamer.live.intake import Intake
from chirpwatch.streamer.live.ledger import Candidate
from chirpwatch.streamer.live.metrics import LiveMetrics
from chirpwatch.streamer.live.ranking import LiveRanking
from chirpwatch.streamer.live.run import LiveRun
from chirpwatch.streamer.live.settings import LiveSettings
from chirpwatch.streamer.live.state import LiveState
from chirpwatch.streamer.live.stretch import LiveStretch
from chirpwatch.streamer.live.summary import Summary
from chirpwatch.streamer.live.triggers import Trigger
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.text import one_line

BLOCK_LENGTH = 4
"""Most seconds of strain in one request, when a backlog waits."""

CHUNK_LENGTH = 4.0
"""Scores in a chunk, s. A chunk is sent once its events are decided."""

HISTORY_LENGTH = 90
"""Newest seconds that are kept: after a change of model, they warm up the new
model's PSD."""

REPORT_LENGTH = 5.0
"""Time between two reports of the search's progress to the API, s."""

LOG_LENGTH = 60.0
"""Time between two progress lines in the log, s."""

log = logging.getLogger("chirpwatch.live")


class LiveSearch:
    """A live search: scores strain as it arrives, and sends candidates.

    Args:
        settings: The search's settings.
        score_client: Client of the served model.
        channels: Channels to read from each detector's frame files.
        client: The results API, which the background is read from.
        outbox: Where results go.
        alerts: Where candidates go.
        metrics: Prometheus metrics of the search.
    """

    def __init__(
        self,
        settings: LiveSettings,
        score_client: ScoreClient,
        channels: Mapping[str, Channels],
        client: ApiClient,
        outbox: Outbox,
        alerts: Alerts,
        metrics: LiveMetrics,
    ) -> None:
        self._settings, self._channels = settings, channels
        self._client, self._outbox = client, outbox
        self._alerts, self._metrics = alerts, metrics
        self._ending = Ending()
        self._disk = Disk(settings.directory, self._ending)
        self._state_path = settings.directory / "live.json"
        self._history: deque[CoincidentSecond] = deque(maxlen=HISTORY_LENGTH)
        self._reported = -float("inf")
        self._logged = time.monotonic()
        self._begin_run(score_client, LiveState.read(self._state_path))

    @property
    def run_id(self) -> str:
        """Identifier of the run in the results API."""
        return self._run.id

    def end(self) -> None:
        """Request the end of the search; safe to call in a signal handler."""
        self._ending.request()

    def run(self) -> None:
        """Search until ``end`` is called.

        Raises:
            ChirpwatchError: The server was away for too long, or the API refused a
                result.
        """
        try:
            with FrameReader(len(self._channels)) as reader:
                frames = self._settings.frames
                self._search(
                    Intake(
                        frames.directory,
                        self._channels,
                        frames.patience,
                        reader,
                        self._metrics,
                    )
                )
            self._end_stretch("the search ends")
            self._report()
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._outbox.update_run(self.run_id, ended_by(error))
            raise
        self._run.update(RunUpdate(state="complete"))
        self._log_progress()

    def _search(self, intake: Intake) -> None:
        """Read and score strain until the end is requested."""
        seconds: list[CoincidentSecond | Gap] = []
        while not self._ending:
            # Patience counts from when the directories were listed: however long
            # reading takes, a second that was listed must not count as missing.
            listed = time.monotonic()
            readings = intake.begin_reading()
            # The seconds of the last pass are scored while new frame files are read.
            self._take(seconds)
            intake.finish_reading(readings)
            seconds = list(intake.ready(listed))
            self._outbox.check()
            self._ranking.refresh_if_due()
            self._metrics.waiting.set(len(self._outbox.waiting()))
            if listed - self._reported > REPORT_LENGTH:
                self._reported = listed
                self._report()
            if listed - self._logged > LOG_LENGTH:
                self._logged = listed
                self._log_progress()
            if not readings and not seconds:
                self._ending.wait(POLL_LENGTH)
        self._take(seconds)

    def _report(self) -> None:
        """Send gaps, failures and latencies to the API, if they changed."""
        update = self._summary.update()
        if update is not None:
            self._run.update(update)

    def _log_progress(self) -> None:
        waiting = len(self._outbox.waiting())
        text, fields = self._summary.progress()
        fields["waiting_results"] = waiting
        log.info("%s, waiting results: %d", text, waiting, extra=fields)

    # Each model has a run of its own

    def _begin_run(self, score_client: ScoreClient, state: LiveState | None) -> None:
        """Begin a run for the served model, or continue the run of ``state``."""
        self._summary = Summary()
        self._score_client, self._geometry = score_client, score_client.geometry
        self._stretch: LiveStretch | None = None
        self._decimator = self._new_decimator()
        self._ranking = LiveRanking(
            self._settings.ranking,
            self._client,
            self._settings.directory / "background.npz",
            self._metrics,
            score_client.model,
            self._geometry.digest,
        )
        background = self._ranking.background
        name = self._settings.frames.directory.name
        body = Run(
            name=one_line(f"live, {name}"),
            model=score_client.model,
            geometry=GeometryBody.of(self._geometry),
            simulated=self._settings.frames.simulated,
            data=one_line(f"frames in {name}"),
            background_run=background.run if background else None,
        )
        self._run = LiveRun(state, self._state_path, body, self._outbox, self._disk)

    def _change_model(self, error: ModelError) -> None:
        """End the run, and score the newest seconds again with the new model."""
        log.warning("%s", error)
        state = self._run.state
        self._run.update(RunUpdate(state="complete", message=one_line(str(error))))
        # The old model's unsent scores are dropped: the new model scores them again.
        self._begin_run(
            ScoreClient(self._score_client.address), replace(state, chunk=None)
        )
        for second in self._history:
            self._score([second])

    # Seconds

    def _take(self, seconds: Sequence[CoincidentSecond | Gap]) -> None:
        """Score seconds, and end the stretch at each gap."""
        for block in blocks(seconds, BLOCK_LENGTH):
            if isinstance(block, Gap):
                self._skip(block)
            else:
                self._analyse(block)

    def _skip(self, gap: Gap) -> None:
        self._end_stretch(gap.reason)
        self._history.clear()
        self._summary.gap(gap)
        self._metrics.seconds.labels("gap").inc(gap.length)
        self._metrics.newest.set(gap.gps + gap.length)
        log.warning(
            "gap of %d s from GPS %d: %s",
            gap.length,
            gap.gps,
            gap.reason,
            extra={"gps": gap.gps, "length_s": gap.length, "reason": gap.reason},
        )

    def _analyse(self, block: Sequence[CoincidentSecond]) -> None:
        now = time.time()
        for second in block:
            latency = max(0, now - second.arrived)
            self._metrics.stages.labels("together").observe(latency)
        self._history.extend(block)
        try:
            self._score(block)
        except ModelError as error:
            self._change_model(error)
        self._metrics.seconds.labels("analysed").inc(len(block))
        self._metrics.newest.set(block[-1].gps + 1)

    def _score(self, block: Sequence[CoincidentSecond]) -> None:
        try:
            strain = np.concatenate(
                [self._decimator.push(second.strain) for second in block], axis=1
            )
        except StrainError as error:
            # A block has one sample rate, so the fault lies with its first second.
            self._end_stretch(str(error))
            log.warning("%s", error)
            if len(block) > 1:
                self._score(block[1:])
            return
        if self._stretch is None:
            self._begin_stretch(block[0].gps)
        stretch = self._stretch
        assert stretch is not None
        triggers = stretch.score(strain, self._ranking.threshold)
        self._observe_latency(block)
        for trigger in triggers:
            self._add_candidate(stretch, trigger, block[-1].arrived)
        self._send_strain(stretch)
        decided = stretch.chunker.decided
        chunk_strides = CHUNK_LENGTH * self._geometry.inference_sampling_rate
        if decided - stretch.chunker.taken >= chunk_strides:
            self._run.send_scores(stretch.chunker, decided)

    def _observe_latency(self, block: Sequence[CoincidentSecond]) -> None:
        now = time.time()
        for second in block:
            latency = max(0, now - second.arrived)
            self._metrics.stages.labels("scored").observe(latency)
            self._summary.scored(latency)

    def _new_decimator(self) -> Decimator:
        return Decimator(self._geometry.sample_rate, self._geometry.stride_size)

    def _begin_stretch(self, gps: int) -> None:
        """Begin a stretch at a GPS second that the decimator has taken already."""
        rate = self._geometry.sample_rate
        skipped_ns = self._decimator.skipped * NANOSECONDS // rate
        self._stretch = LiveStretch(
            self._score_client,
            gps * NANOSECONDS + skipped_ns,
            self._run.state.until_ns,
            self._note_failure,
            self._ending,
        )
        self._metrics.sequences.inc()
        log.info("stretch begins at GPS %d", gps, extra={"gps": gps})

    def _note_failure(self, error: ServerError) -> None:
        self._metrics.server_failures.inc()
        self._summary.failure(error)

    def _end_stretch(self, reason: str) -> None:
        """End the current stretch, and send all its scores and strain."""
        stretch, self._stretch = self._stretch, None
        self._decimator = self._new_decimator()
        if stretch is None:
            return
        for trigger in stretch.finish():
            self._add_candidate(stretch, trigger, time.time())
        self._send_strain(stretch, last=True)
        stretch.chunker.finish()
        self._run.send_scores(stretch.chunker, stretch.chunker.pushed)
        stretch.close()
        gps = stretch.end_ns / NANOSECONDS
        log.info(
            "stretch ends at GPS %.3f: %s",
            gps,
            reason,
            extra={"gps": gps, "reason": reason},
        )

    def _send_strain(self, stretch: LiveStretch, last: bool = False) -> None:
        for start_ns, strain in stretch.strain(last):
            self._run.send_strain(start_ns, strain)

    # Candidates

    def _add_candidate(
        self, stretch: LiveStretch, trigger: Trigger, arrived: float
    ) -> None:
        """Rank a trigger, store it as a candidate, and have it sent.

        Args:
            stretch: The trigger's stretch.
            trigger: The trigger.
            arrived: When the frame file that decided it was written, Unix time, s.
        """
        background = self._ranking.background
        if background is None:
            return
        rate = background.far(trigger.statistic)
        candidate = Candidate(
            id=f"{self.run_id}-{trigger.time_ns}",
            run=self.run_id,
            time_ns=trigger.time_ns,
            statistic=trigger.statistic,
            far_per_year=rate.far_per_year,
            saturated=rate.saturated,
            background_run=background.run,
            background_livetime=background.livetime,
            model=self._run.state.model,
            ifos=self._geometry.ifos,
            simulated=self._settings.frames.simulated,
        )
        if not self._disk.write(partial(self._alerts.add, candidate)):
            return
        stretch.want_strain(trigger)
        self._summary.candidate()
        self._metrics.candidates.inc()
        self._metrics.stages.labels("decided").observe(max(0, time.time() - arrived))
        log.info(
            "candidate at GPS %.3f, statistic %.2f, FAR %s%.3g per year",
            trigger.time_ns / NANOSECONDS,
            trigger.statistic,
            "≤ " if rate.saturated else "",
            rate.far_per_year,
            extra={"candidate": candidate.as_json()},
        )
