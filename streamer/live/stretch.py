"""The analysis of a gap-free stretch of live strain."""

from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from chirpwatch.api.contract.requests import Strain
from chirpwatch.errors import ServerError
from chirpwatch.streamer.chunks import Chunker
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.live.ending import Ending
from chirpwatch.streamer.live.recent import RecentStrain
from chirpwatch.streamer.live.sequence import LiveSequence
from chirpwatch.streamer.live.triggers import Trigger, TriggerFinder


class LiveStretch:
    """Scores a gap-free stretch, and finds its triggers and events.

    Args:
        score_client: Client of the served model.
        t0_ns: GPS time of the first sample, ns.
        sent_until_ns: Right edge of the last score that an earlier process sent, GPS
            ns.
        on_failure: Called with each failure of the Triton server.
        ending: Cuts short the wait for an unreachable server.

    Attributes:
        chunker: The unsent scores and their events.
    """

    def __init__(
        self,
        score_client: ScoreClient,
        t0_ns: int,
        sent_until_ns: int,
        on_failure: Callable[[ServerError], None],
        ending: Ending,
    ) -> None:
        geometry = score_client.geometry
        self._sequence = LiveSequence(score_client, on_failure, ending.wait)
        self._finder = TriggerFinder(geometry, score_client.longest_delay, t0_ns)
        self._recent = RecentStrain(geometry)
        self.chunker = Chunker(geometry, t0_ns, sent_until_ns)

    @property
    def end_ns(self) -> int:
        """Right edge of the last score, GPS ns."""
        return self.chunker.edge_ns(self.chunker.pushed - 1)

    def score(self, strain: NDArray[Any], threshold: float) -> list[Trigger]:
        """Score the next strain.

        Args:
            strain: [ifos, samples], whole strides.
            threshold: Statistic that a trigger must reach.

        Returns:
            The triggers that these scores decide.

        Raises:
            ServerError: The server was unreachable for too long.
            ModelError: The server now serves another model.
        """
        scores = self._sequence.push(strain)
        score, delay, valid = scores.score[0], scores.delay[0], scores.valid
        self._recent.push(strain)
        self.chunker.push(score, delay, valid)
        return list(self._finder.push(scores.first, score, delay, valid, threshold))

    def want_strain(self, trigger: Trigger) -> None:
        """Cut out the strain around a trigger once it has arrived."""
        self._recent.want(trigger.time_ns)

    def strain(self, last: bool = False) -> Iterator[tuple[int, Strain]]:
        """Yield the strain around triggers; see ``RecentStrain.cut``."""
        return self._recent.cut(self.end_ns, last)

    def finish(self) -> list[Trigger]:
        """End the stretch; return the trigger that was still undecided, if any."""
        return list(self._finder.flush(self.end_ns))

    def close(self) -> None:
        """End the server's sequence."""
        with self._sequence:
            pass
