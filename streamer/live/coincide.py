"""The detectors' seconds, brought together in time; what does not come is a gap."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

MAX_LEAP = 60
"""Longest gap, s, that is believed of fewer than all detectors: a frame with a wrong
name must not make all that comes in time too late."""


@dataclass(frozen=True)
class Second:
    """A second of one detector.

    Attributes:
        strain: float64, [rate]; none where it is not to be analysed.
        arrived: When its frame was written, Unix time, s.
        reason: Why it is not to be analysed.
    """

    strain: NDArray[Any] | None
    arrived: float
    reason: str = ""


@dataclass(frozen=True)
class Together:
    """A second of all detectors.

    Attributes:
        gps: The second, GPS.
        strain: For each detector, float64 [rate].
        arrived: When the last of their frames was written, Unix time, s.
    """

    gps: int
    strain: tuple[NDArray[Any], ...]
    arrived: float


@dataclass(frozen=True)
class Gap:
    """Seconds that are not analysed.

    Attributes:
        gps: The first, GPS.
        length: How many.
        reason: Why.
    """

    gps: int
    length: int
    reason: str


def blocks(
    told: Iterable[Together | Gap], length: int
) -> Iterator[list[Together] | Gap]:
    """Bring seconds that follow one another, and are sampled alike, together.

    Args:
        told: What was told, in order of time.
        length: Most seconds of a block.
    """
    block: list[Together] = []
    for one in told:
        if block and (
            isinstance(one, Gap)
            or len(block) == length
            or [len(strain) for strain in one.strain]
            != [len(strain) for strain in block[-1].strain]
        ):
            yield block
            block = []
        if isinstance(one, Gap):
            yield one
        else:
            block.append(one)
    if block:
        yield block


@dataclass
class Assembler:
    """Brings seconds of several detectors together, in order, each once.

    What is there of all detectors is told at once. A second that lacks one is waited
    for: until `patience` after a second that is no earlier came of any detector. Then
    it is a gap, and comes too late. While nothing comes of anybody, nothing is a gap.

    Attributes:
        ifos: Detectors.
        patience: Longest wait, s.
        next: The next second, GPS; none before the first.
        counts: What came that was not as it should be: ``late``, ``twice``,
            ``out_of_order`` seconds.
    """

    ifos: Sequence[str]
    patience: float
    next: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, dict[int, Second]] = field(default_factory=dict)
    _came: dict[int, float] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=dict)
    _progress: float = -float("inf")

    def __post_init__(self) -> None:
        self._waiting = {ifo: {} for ifo in self.ifos}

    def offer(self, ifo: str, gps: int, second: Second, now: float) -> None:
        """Take a second of a detector.

        Args:
            ifo: The detector.
            gps: The second, GPS.
            second: What it holds.
            now: A clock that never steps, s.
        """
        if self.next is not None and gps < self.next:
            self.counts["late"] += 1
            return
        if gps in self._waiting[ifo]:
            self.counts["twice"] += 1
            return
        if gps < self._newest.get(ifo, gps):
            self.counts["out_of_order"] += 1
        self._newest[ifo] = max(gps, self._newest.get(ifo, gps))
        self._waiting[ifo][gps] = second
        self._came.setdefault(gps, now)

    def has(self, ifo: str, gps: int) -> bool:
        """Whether a second of a detector came, or can no longer come."""
        passed = self.next is not None and gps < self.next
        return passed or gps in self._waiting[ifo]

    def ready(self, now: float) -> Iterator[Together | Gap]:
        """What can be told by now, in order of time."""
        while (told := self._one(now)) is not None:
            self._progress = now
            yield told

    def _one(self, now: float) -> Together | Gap | None:
        if not self._came:
            return None
        if self.next is None:
            self.next = min(self._came)
        gps = self.next
        parts = [self._waiting[ifo].get(gps) for ifo in self.ifos]
        if None not in parts:
            return self._told(gps, [part for part in parts if part is not None])
        # It lacks somebody: since when does anybody have it, or a later one?
        everybody = all(self._waiting.values())
        since = [
            came
            for later, came in self._came.items()
            if everybody or later - gps <= MAX_LEAP
        ]
        if not since or now - min(since) < self.patience:
            return None
        if gps not in self._came and now - self._progress < self.patience:
            # What is later came long ago, and yet the others come in time.
            return None
        missing = [
            ifo for ifo, part in zip(self.ifos, parts, strict=True) if part is None
        ]
        length = 1
        if len(missing) == len(self.ifos):
            # Nobody has anything before this.
            length = min(self._came) - gps
            self.next = gps + length
        else:
            self._drop()
        return Gap(gps, length, f"no frame of {', '.join(missing)}")

    def _told(self, gps: int, parts: Sequence[Second]) -> Together | Gap:
        self._drop()
        off = {
            ifo: part.reason
            for ifo, part in zip(self.ifos, parts, strict=True)
            if part.strain is None
        }
        if off:
            return Gap(gps, 1, ", ".join(f"{ifo} {why}" for ifo, why in off.items()))
        return Together(
            gps,
            tuple(part.strain for part in parts if part.strain is not None),
            max(part.arrived for part in parts),
        )

    def _drop(self) -> None:
        """Go on by one second."""
        assert self.next is not None
        for waiting in self._waiting.values():
            waiting.pop(self.next, None)
        self._came.pop(self.next, None)
        self.next += 1
