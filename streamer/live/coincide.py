"""Aligns the detectors' seconds in time, and declares gaps where data are missing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

MAX_LEAP = 60
"""Longest gap, s, that is declared while a detector is silent: a frame file with a
wrong GPS time in its name must not make all data that arrive in time count as late."""


@dataclass(frozen=True)
class DetectorSecond:
    """A second of a single detector's strain.

    Attributes:
        strain: float64, [rate]; None if the second is not analysed.
        arrived: When its frame file was written, Unix time, s.
        reason: Why the second is not analysed; empty if it is.
    """

    strain: NDArray[Any] | None
    arrived: float
    reason: str = ""


@dataclass(frozen=True)
class CoincidentSecond:
    """A second of strain of all detectors.

    Attributes:
        gps: Start, GPS s.
        strain: For each detector, float64 [rate].
        arrived: When the last of the frame files was written, Unix time, s.
    """

    gps: int
    strain: tuple[NDArray[Any], ...]
    arrived: float


@dataclass(frozen=True)
class Gap:
    """Seconds that are not analysed.

    Attributes:
        gps: Start, GPS s.
        length: Length, s.
        reason: Why they are not analysed.
    """

    gps: int
    length: int
    reason: str


def blocks(
    items: Iterable[CoincidentSecond | Gap], length: int
) -> Iterator[list[CoincidentSecond] | Gap]:
    """Group consecutive seconds with the same sample rates into blocks.

    Args:
        items: Seconds and gaps, in order of time.
        length: Longest block, s.

    Yields:
        Blocks of seconds, and gaps unchanged.
    """
    block: list[CoincidentSecond] = []
    for item in items:
        if block and (
            isinstance(item, Gap)
            or len(block) == length
            or [len(strain) for strain in item.strain]
            != [len(strain) for strain in block[-1].strain]
        ):
            yield block
            block = []
        if isinstance(item, Gap):
            yield item
        else:
            block.append(item)
    if block:
        yield block


@dataclass
class Assembler:
    """Aligns seconds of several detectors, and releases each once, in order of time.

    A second that all detectors delivered is released at once. An incomplete second is
    held for `patience` after any detector delivered that second or a later one. Then it
    is declared a gap, and data that arrive for it count as late. If no detector
    delivers data, no gap is declared.

    Attributes:
        ifos: Detectors.
        patience: Longest wait for an incomplete second, s.
        next: The next second to release, GPS s; None before the first.
        counts: Number of irregular seconds: ``late``, ``twice``, ``out_of_order``.
    """

    ifos: Sequence[str]
    patience: float
    next: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, dict[int, DetectorSecond]] = field(default_factory=dict)
    _first_delivery: dict[int, float] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=dict)
    _progress: float = -float("inf")

    def __post_init__(self) -> None:
        self._waiting = {ifo: {} for ifo in self.ifos}

    def offer(self, ifo: str, gps: int, second: DetectorSecond, now: float) -> None:
        """Take a detector's second.

        Args:
            ifo: The detector.
            gps: Start of the second, GPS s.
            second: Its strain.
            now: Time of a monotonic clock, s.
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
        self._first_delivery.setdefault(gps, now)

    def has(self, ifo: str, gps: int) -> bool:
        """Whether a detector's second was delivered, or would now be late."""
        passed = self.next is not None and gps < self.next
        return passed or gps in self._waiting[ifo]

    def ready(self, now: float) -> Iterator[CoincidentSecond | Gap]:
        """Release the seconds and gaps that are decided by now, in order of time."""
        while (item := self._release(now)) is not None:
            self._progress = now
            yield item

    def _release(self, now: float) -> CoincidentSecond | Gap | None:
        if not self._first_delivery:
            return None
        if self.next is None:
            self.next = min(self._first_delivery)
        gps = self.next
        parts = [self._waiting[ifo].get(gps) for ifo in self.ifos]
        if None not in parts:
            return self._complete(gps, [part for part in parts if part is not None])
        # Since when has any detector had this second, or a later one?
        all_deliver = all(self._waiting.values())
        since = [
            delivered
            for later, delivered in self._first_delivery.items()
            if all_deliver or later - gps <= MAX_LEAP
        ]
        if not since or now - min(since) < self.patience:
            return None
        if gps not in self._first_delivery and now - self._progress < self.patience:
            # A detector runs ahead, but the others still deliver in time.
            return None
        missing = [
            ifo for ifo, part in zip(self.ifos, parts, strict=True) if part is None
        ]
        length = 1
        if len(missing) == len(self.ifos):
            # No detector has data before its first delivered second.
            length = min(self._first_delivery) - gps
            self.next = gps + length
        else:
            self._drop()
        return Gap(gps, length, f"no frame file from {', '.join(missing)}")

    def _complete(
        self, gps: int, parts: Sequence[DetectorSecond]
    ) -> CoincidentSecond | Gap:
        self._drop()
        off = {
            ifo: part.reason
            for ifo, part in zip(self.ifos, parts, strict=True)
            if part.strain is None
        }
        if off:
            return Gap(gps, 1, ", ".join(f"{ifo} {why}" for ifo, why in off.items()))
        return CoincidentSecond(
            gps,
            tuple(part.strain for part in parts if part.strain is not None),
            max(part.arrived for part in parts),
        )

    def _drop(self) -> None:
        """Discard the next second's data, and advance by a second."""
        assert self.next is not None
        for waiting in self._waiting.values():
            waiting.pop(self.next, None)
        self._first_delivery.pop(self.next, None)
        self.next += 1
