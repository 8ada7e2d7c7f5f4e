"""What a fetch from GWOSC shall take, and the plan that this comes to."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Self

from chirpwatch.errors import (
    ConfigurationError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.gwosc.archive import (
    Event,
    SourceFile,
)

SPLITS = ("train", "valid", "test")
SAMPLE_BYTES = 8


@dataclass(frozen=True)
class FetchSettings:
    """What to take. The same settings give the same plan while GWOSC stays as it is.

    Attributes:
        run: Observing run, such as ``O3a``; without it, the run that holds the range.
        start, end: Range, GPS s; without it, the whole run.
        ifos: Detectors; a time counts where all of them have good data.
        flags: Data-quality flags that must be on in each detector, without its prefix.
            Of the three categories a time must pass each one, so that it does not
            matter whether a run's categories include those before them.
        min_duration: Shortest segment, s.
        max_duration: Longest segment, s; longer stretches are cut into equal parts.
        livetime: How much to take at most, from the start on, s; everything without
            it. Less is taken where files are missing or a rest is too short.
        splits: Shares of the livetime for train, valid and test, in this order of time.
        pad: Time around each catalogued event that is left out, s to either side. 64 s
            before the merger holds a binary neutron star from 30 Hz on (55 s at a chirp
            mass of 1.2 solar masses); 64 s after it, the longest PSD has forgotten it.
        source_rate: Rate of the files to download, 4096 or 16384 Hz.
        sample_rate: Rate of the strain that is written, Hz.
        host: URL of GWOSC.

    Raises:
        ConfigurationError: A value cannot be, or two of them contradict each other.
    """

    run: str | None = None
    start: int | None = None
    end: int | None = None
    ifos: tuple[str, ...] = Geometry().ifos
    flags: tuple[str, ...] = ("CBC_CAT1", "CBC_CAT2", "CBC_CAT3", "NO_CBC_HW_INJ")
    min_duration: int = 256
    max_duration: int = 4096
    livetime: int | None = None
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1)
    pad: float = 64.0
    source_rate: int = 4096
    sample_rate: int = 2048
    host: str = "https://gwosc.org"

    def __post_init__(self) -> None:
        ranged = self.start is not None and self.end is not None
        ordered = self.start is None or self.end is None or self.start < self.end
        checks = {
            "a run, or a start and an end": (
                self.run is not None or ranged,
                ("run", "start", "end"),
            ),
            "a start before the end": (ordered, ("start", "end")),
            "distinct detectors, at least one": (
                0 < len(self.ifos) == len(set(self.ifos)) and all(self.ifos),
                ("ifos",),
            ),
            "a min_duration of at least 1 s": (
                self.min_duration >= 1,
                ("min_duration",),
            ),
            # Else a stretch a little longer than the longest gives parts too short.
            "a max_duration of at least twice min_duration": (
                self.max_duration >= 2 * self.min_duration,
                ("max_duration", "min_duration"),
            ),
            "a livetime of at least min_duration": (
                self.livetime is None or self.livetime >= self.min_duration,
                ("livetime", "min_duration"),
            ),
            "three shares of at least 0 whose sum is 1 as splits": (
                len(self.splits) == len(SPLITS)
                and min(self.splits) >= 0
                and math.isclose(sum(self.splits), 1),
                ("splits",),
            ),
            "a pad of at least 0 s": (self.pad >= 0, ("pad",)),
            "a source_rate of 4096 or 16384 Hz": (
                self.source_rate in (4096, 16384),
                ("source_rate",),
            ),
        }
        for rule, (kept, names) in checks.items():
            if not kept:
                found = ", ".join(f"{name} {getattr(self, name)}" for name in names)
                raise ConfigurationError(f"fetch: expected {rule}; found {found}")


@dataclass(frozen=True, order=True)
class PlannedSegment:
    """A segment to write.

    Attributes:
        start, stop: GPS s.
        split: ``train``, ``valid`` or ``test``.
    """

    start: int
    stop: int
    split: str


@dataclass(frozen=True)
class Plan:
    """What is taken, and where from.

    Attributes:
        settings: How it was chosen.
        run: Observing run.
        segments: In order of time.
        events: Catalogued events in the range or within ``pad`` of it.
        files: What is downloaded.
    """

    settings: FetchSettings
    run: str
    segments: tuple[PlannedSegment, ...]
    events: tuple[Event, ...]
    files: tuple[SourceFile, ...]

    def livetime(self, split: str | None = None) -> int:
        """Length of the segments of one split, or of all, s."""
        return sum(
            each.stop - each.start
            for each in self.segments
            if split in (None, each.split)
        )

    @property
    def strain_bytes(self) -> int:
        """Size of the strain of all segments and detectors as it is written."""
        settings = self.settings
        samples = self.livetime() * settings.sample_rate * len(settings.ifos)
        return SAMPLE_BYTES * samples

    @property
    def download_bytes(self) -> int:
        """Size of the files without compression, which saves less than a tenth."""
        lengths = sum(file.stop - file.start for file in self.files)
        return SAMPLE_BYTES * lengths * self.settings.source_rate

    def describe(self) -> str:
        """The plan as text: segments, events, sizes."""
        lines = [f"{self.run}, {', '.join(self.settings.ifos)}"]
        lines += [
            f"  {each.split:5} {each.start} to {each.stop}  {each.stop - each.start} s"
            for each in self.segments
        ]
        lines += [f"{split}: {self.livetime(split) / 3600:.2f} h" for split in SPLITS]
        if self.settings.livetime is not None:
            lines.append(
                f"wanted {self.settings.livetime} s, taken {self.livetime()} s"
            )
        lines += [f"left out: {event.name} at {event.gps}" for event in self.events]
        lines.append(
            f"{len(self.files)} files to download, at most "
            f"{self.download_bytes / 1e9:.2f} GB; {self.strain_bytes / 1e9:.2f} GB to "
            "write, as much again meanwhile"
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        """JSON, for the directory in which a fetch goes on."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what ``to_json`` wrote."""
        values = json.loads(text)
        settings = values["settings"]
        for name in ("ifos", "flags", "splits"):
            settings[name] = tuple(settings[name])
        return cls(
            settings=FetchSettings(**settings),
            run=values["run"],
            segments=tuple(PlannedSegment(**each) for each in values["segments"]),
            events=tuple(Event(**each) for each in values["events"]),
            files=tuple(SourceFile(**each) for each in values["files"]),
        )


def check_disjoint(segments: Iterable[PlannedSegment]) -> None:
    """Make sure that no two segments, of one split or of two, share any time.

    Raises:
        StrainError: Two of them overlap.
    """
    ordered = sorted(segments)
    for one, other in pairwise(ordered):
        if other.start < one.stop:
            raise StrainError(
                f"expected segments that do not overlap, found {one.split} "
                f"{one.start} to {one.stop} and {other.split} {other.start} to "
                f"{other.stop}"
            )
