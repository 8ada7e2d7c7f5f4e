"""Settings of a fetch from GWOSC, and the plan made from them."""

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
    CatalogEvent,
    SourceFile,
)

SPLITS = ("train", "valid", "test")
SAMPLE_BYTES = 8
"""Size of a float64 sample, in GWOSC's files and in ours."""


@dataclass(frozen=True)
class FetchSettings:
    """Selection of GWOSC's data; as long as these stay, it gives the same plan.

    Attributes:
        run: Observing run, such as ``O3a``; None for the run that contains the range.
        start, end: Range, GPS s; None for the run's.
        ifos: Detectors; only times at which all of them have good data are taken.
        flags: Data-quality flags that must be active in each detector, without its
            prefix. The default requires all three categories, because whether a
            category includes the lower ones depends on the run.
        min_duration: Shortest segment, s.
        max_duration: Longest segment, s; longer ones are cut into equal parts.
        livetime: Largest livetime to take, from the start of the range, s; None for
            all. Missing files and rests that are too short reduce it.
        splits: Shares of the livetime for train, valid and test, in order of time.
        pad: Time left out on either side of each catalogued event, s. 64 s before the
            merger contain a binary neutron star from 30 Hz on (55 s at a chirp mass of
            1.2 solar masses); 64 s after it, the event has left the longest PSD.
        source_rate: Sample rate of the files to download, 4096 or 16384 Hz.
        sample_rate: Sample rate of the strain that is written, Hz.
        host: URL of GWOSC.

    Raises:
        ConfigurationError: A value is out of range, or two contradict each other.
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
            # Or the halves of a segment just over max_duration would be too short.
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
    """A segment of the background file.

    Attributes:
        start, stop: First and end GPS second.
        split: ``train``, ``valid`` or ``test``.
    """

    start: int
    stop: int
    split: str


@dataclass(frozen=True)
class FetchPlan:
    """Segments to write, and files to download for them.

    Attributes:
        settings: Settings from which the plan was made.
        run: Observing run.
        segments: Segments, in order of time.
        events: Catalogued events in the range or within ``pad`` of it.
        files: Files to download.
    """

    settings: FetchSettings
    run: str
    segments: tuple[PlannedSegment, ...]
    events: tuple[CatalogEvent, ...]
    files: tuple[SourceFile, ...]

    def livetime(self, split: str | None = None) -> int:
        """Livetime of a split, or of all if None, s."""
        return sum(
            each.stop - each.start
            for each in self.segments
            if split in (None, each.split)
        )

    @property
    def strain_bytes(self) -> int:
        """Size of the strain to write, all segments and detectors."""
        settings = self.settings
        samples = self.livetime() * settings.sample_rate * len(settings.ifos)
        return SAMPLE_BYTES * samples

    @property
    def download_bytes(self) -> int:
        """Upper limit of the download: GWOSC's compression saves less than a tenth."""
        lengths = sum(file.stop - file.start for file in self.files)
        return SAMPLE_BYTES * lengths * self.settings.source_rate

    def describe(self) -> str:
        """Describe the plan for the terminal: segments, events, sizes."""
        lines = [f"{self.run}, {', '.join(self.settings.ifos)}"]
        lines += [
            f"  {each.split:5} {each.start} to {each.stop}  {each.stop - each.start} s"
            for each in self.segments
        ]
        lines += [f"{split}: {self.livetime(split) / 3600:.2f} h" for split in SPLITS]
        if self.settings.livetime is not None:
            lines.append(
                f"requested {self.settings.livetime} s, taken {self.livetime()} s"
            )
        lines += [f"left out: {event.name} at {event.gps}" for event in self.events]
        lines.append(
            f"{len(self.files)} files to download, at most "
            f"{self.download_bytes / 1e9:.2f} GB; {self.strain_bytes / 1e9:.2f} GB to "
            "write, twice that during the fetch"
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        """Convert to JSON, for the directory from which a fetch resumes."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of ``to_json``."""
        values = json.loads(text)
        settings = values["settings"]
        for name in ("ifos", "flags", "splits"):
            settings[name] = tuple(settings[name])
        return cls(
            settings=FetchSettings(**settings),
            run=values["run"],
            segments=tuple(PlannedSegment(**each) for each in values["segments"]),
            events=tuple(CatalogEvent(**each) for each in values["events"]),
            files=tuple(SourceFile(**each) for each in values["files"]),
        )


def check_disjoint(segments: Iterable[PlannedSegment]) -> None:
    """Check that no two segments overlap, within a split or between two.

    Raises:
        StrainError: Two segments overlap.
    """
    ordered = sorted(segments)
    for earlier, later in pairwise(ordered):
        if later.start < earlier.stop:
            raise StrainError(
                f"expected segments that do not overlap, found {earlier.split} "
                f"{earlier.start} to {earlier.stop} and {later.split} {later.start} to "
                f"{later.stop}"
            )
