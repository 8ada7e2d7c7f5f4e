"""Choose which of GWOSC's data to fetch: coincident good times, cut to segments."""

import math
from collections.abc import Iterator
from itertools import pairwise

from gwpy.segments import Segment, SegmentList

from chirpwatch.errors import StrainError
from chirpwatch.train.data.gwosc.archive import (
    Archive,
    SourceFile,
)
from chirpwatch.train.data.gwosc.plan import (
    SPLITS,
    FetchPlan,
    FetchSettings,
    PlannedSegment,
    check_disjoint,
)


def make_plan(settings: FetchSettings, tries: int = 5, wait: float = 1.0) -> FetchPlan:
    """Query GWOSC, and choose segments and files by the settings.

    Args:
        settings: Selection of data.
        tries: Number of attempts of a request while no connection can be made.
        wait: Back-off before the second attempt, s; it doubles after each attempt.

    Raises:
        StrainError: GWOSC does not reply or has no such run or flag; no data are left;
            or none are left for one of the splits.
    """
    archive = Archive(settings.host, tries, wait)
    run, start, end = archive.run_span(
        settings.run, settings.start, settings.end, settings.ifos
    )
    good = SegmentList([Segment(start, end)])
    for ifo in settings.ifos:
        for flag in settings.flags:
            good &= archive.good_times(f"{ifo}_{flag}", start, end)
    events = archive.events(start - settings.pad, end + settings.pad)
    clean = good - SegmentList(
        Segment(
            math.floor(event.gps - settings.pad), math.ceil(event.gps + settings.pad)
        )
        for event in events
    )
    taken = _first(_longer(clean, settings.min_duration), settings.livetime)
    files: list[SourceFile] = []
    for ifo in settings.ifos:
        if taken:
            first, last = taken.extent()
            ifo_files = archive.files(run, ifo, first, last, settings.source_rate)
            taken &= SegmentList(Segment(file.start, file.stop) for file in ifo_files)
            files += ifo_files
    taken = _longer(taken.coalesce(), settings.min_duration)
    where = f"{settings.host}, {run}, GPS {start} to {end}"
    if not taken:
        raise StrainError(
            f"{where}: expected files of {', '.join(settings.ifos)} for at least "
            f"{settings.min_duration} s with "
            f"{', '.join(settings.flags) or 'no flag'}, {settings.pad:g} s away from "
            f"events; found none: {abs(good)} s have the flags, {abs(clean)} s of them "
            f"are away from the {len(events)} events; choose another range, or a "
            "shorter --min-duration or --pad"
        )
    segments = tuple(sorted(_segments(taken, settings)))
    check_disjoint(segments)
    for split, share in zip(SPLITS, settings.splits, strict=True):
        if share and not any(each.split == split for each in segments):
            raise StrainError(
                f"{where}: expected a segment of at least {settings.min_duration} s "
                f"for {split}, found none in its share of {share:g} of {abs(taken)} s; "
                "take more, or a shorter --min-duration"
            )
    used = [
        file
        for file in files
        if any(each.start < file.stop and each.stop > file.start for each in segments)
    ]
    return FetchPlan(settings, run, segments, tuple(events), tuple(sorted(used)))


def _longer(times: SegmentList, least: int) -> SegmentList:
    return SegmentList(each for each in times if abs(each) >= least)


def _first(times: SegmentList, livetime: int | None) -> SegmentList:
    """The first ``livetime`` seconds of the segments, or all of them if None."""
    if livetime is None:
        return times
    taken = SegmentList()
    for each in times:
        left = livetime - abs(taken)
        if left > 0:
            taken.append(Segment(each[0], min(each[1], each[0] + left)))
    return taken


def _segments(times: SegmentList, settings: FetchSettings) -> Iterator[PlannedSegment]:
    """Divide times among the splits, and cut them to at most ``max_duration``."""
    # Livetime in all, and before the current stretch.
    total, passed = abs(times), 0
    shares = [sum(settings.splits[: i + 1]) for i in range(len(SPLITS))]
    edges = [0, *(round(total * share) for share in shares)]
    for start, stop in times:
        for split, first, last in zip(SPLITS, edges, edges[1:], strict=False):
            begin = max(start, start + first - passed)
            length = min(stop, start + last - passed) - begin
            if length < settings.min_duration:
                continue
            count = -(-length // settings.max_duration)
            cuts = [begin + length * i // count for i in range(count + 1)]
            for first_second, end_second in pairwise(cuts):
                yield PlannedSegment(first_second, end_second, split)
        passed += stop - start
