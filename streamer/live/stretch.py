"""A gap-free stretch under analysis."""

from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from chirpwatch.api.contract.requests import Strain
from chirpwatch.errors import ServerError
from chirpwatch.streamer.chunks import Chunker
from chirpwatch.streamer.client import Detector
from chirpwatch.streamer.live.ending import Ending
from chirpwatch.streamer.live.recent import RecentStrain
from chirpwatch.streamer.live.sequence import LiveSequence
from chirpwatch.streamer.live.triggers import Trigger, TriggerFinder


class Stretch:
    """Scores a gap-free stretch, and finds the triggers and events in it.

    Args:
        detector: The served detector.
        t0_ns: GPS time of the first sample, ns.
        sent_until_ns: Scores whose right edges are no later were sent by an earlier
            process, GPS ns.
        on_failure: Called with each failure of the server.
        ending: Cuts short the wait for a server that is away.

    Attributes:
        chunker: The scores that are not sent yet, and the events among them.
    """

    def __init__(
        self,
        detector: Detector,
        t0_ns: int,
        sent_until_ns: int,
        on_failure: Callable[[ServerError], None],
        ending: Ending,
    ) -> None:
        geometry = detector.geometry
        self._sequence = LiveSequence(detector, on_failure, ending.wait)
        self._finder = TriggerFinder(geometry, detector.longest_delay, t0_ns)
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
            The triggers that it decides.

        Raises:
            ServerError: The server was away for too long.
            ModelError: It came back with another model.
        """
        scores = self._sequence.push(strain)
        score, delay, valid = scores.score[0], scores.delay[0], scores.valid
        self._recent.push(strain)
        self.chunker.push(score, delay, valid)
        return list(self._finder.push(scores.first, score, delay, valid, threshold))

    def want_strain(self, trigger: Trigger) -> None:
        """Have the strain around a trigger cut out, once it is there."""
        self._recent.want(trigger.time_ns)

    def strain(self, last: bool = False) -> Iterator[tuple[int, Strain]]:
        """Strain around triggers, as ``RecentStrain.cut``."""
        return self._recent.cut(self.end_ns, last)

    def finish(self) -> list[Trigger]:
        """End the stretch; return the trigger that was still open, if there is one."""
        return list(self._finder.flush(self.end_ns))

    def close(self) -> None:
        """End the server's sequence."""
        with self._sequence:
            pass
