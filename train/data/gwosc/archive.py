"""Client of GWOSC's API (version 2): runs, data-quality segments, events, files."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import requests
from gwosc.api import v2
from gwosc.locate import get_run_urls
from gwosc.timeline import get_segments
from gwosc.utils import url_segment
from gwpy.segments import Segment, SegmentList
from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from chirpwatch.errors import StrainError

PAGE_SIZE = 500
"""Entries in each page of a reply."""

FILE_LENGTH = 4096
"""Length of GWOSC's strain files, s."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class CatalogEvent:
    """An event in one of GWOSC's catalogues.

    Attributes:
        name: Name, such as ``GW150914``.
        gps: GPS time, s.
        catalog: Catalogue that lists this time.
    """

    name: str
    gps: float
    catalog: str


@dataclass(frozen=True, order=True)
class SourceFile:
    """A strain file on GWOSC's server.

    Attributes:
        ifo: Detector.
        start, stop: First and end GPS second.
        url: URL.
    """

    ifo: str
    start: int
    stop: int
    url: str

    @property
    def name(self) -> str:
        """File name, the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


class Archive:
    """Client of GWOSC's API that retries, with back-off, when it cannot connect.

    Args:
        host: URL of the server.
        tries: Number of attempts of a request while no connection can be made.
        wait: Back-off before the second attempt, s; it doubles after each attempt.
    """

    def __init__(self, host: str, tries: int, wait: float) -> None:
        # The client caches each reply for the life of the process.
        v2.JSON_CACHE.clear()
        self.host = host.rstrip("/")
        self.tries = tries
        self.wait = wait

    def run_span(
        self, run: str | None, start: int | None, end: int | None, ifos: Iterable[str]
    ) -> tuple[str, int, int]:
        """Find the observing run that contains a range of time.

        Args:
            run: Name of the run; None for the first that contains the range.
            start: Start of the range, GPS s; None for the run's.
            end: End of the range, GPS s; None for the run's.
            ifos: Detectors that the run must have.

        Returns:
            The run's name, and start and end of the range, GPS s.

        Raises:
            StrainError: There is no such run, it does not contain the range, or GWOSC
                does not reply.
        """
        runs = self._ask("runs", lambda: list(v2.fetch_runs(host=self.host)))
        spans = {
            each["name"]: (int(each["gps_start"]), int(each["gps_end"]))
            for each in runs
            if set(ifos) <= set(each["detectors"])
        }
        listed = ", ".join(f"{name} ({a} to {b})" for name, (a, b) in spans.items())
        if run is not None and run not in spans:
            raise StrainError(
                f"{self.host}: expected a run with {', '.join(ifos)}, found no {run}; "
                f"there are {listed or 'none'}"
            )
        candidates = spans if run is None else {run: spans[run]}
        for name, (first, last) in candidates.items():
            begin, stop = start or first, end or last
            if first <= begin < stop <= last:
                return name, begin, stop
        raise StrainError(
            f"{self.host}: expected a range within one run with {', '.join(ifos)}, "
            f"found {start} to {end}; the runs are {listed or 'none'}"
        )

    def good_times(self, flag: str, start: int, end: int) -> SegmentList:
        """Segments in which a data-quality flag is active within a range of time.

        Args:
            flag: Name of the flag, such as ``H1_CBC_CAT3``.
            start: Start of the range, GPS s.
            end: End of the range, GPS s.

        Raises:
            StrainError: There is no such flag, or GWOSC does not reply.
        """
        segments = self._ask(
            f"the flag {flag}",
            lambda: get_segments(flag, start, end, host=self.host, pagesize=PAGE_SIZE),
        )
        times = SegmentList(Segment(*map(int, segment)) for segment in segments)
        return times.coalesce() & SegmentList([Segment(start, end)])

    def events(self, start: float, end: float) -> list[CatalogEvent]:
        """Events of all catalogues within a range of time, GPS s, in order of time.

        Versions of an event with different times are all returned. Catalogues of
        marginal events are included: a possible signal is not background.

        Raises:
            StrainError: GWOSC does not reply.
        """
        versions = self._ask(
            "events",
            lambda: list(
                v2.fetch_event_versions(
                    segment=(start, end), host=self.host, pagesize=PAGE_SIZE
                )
            ),
        )
        events: dict[tuple[str, float], CatalogEvent] = {}
        for each in versions:
            event = CatalogEvent(each["name"], float(each["gps"]), each["catalog"])
            if start <= event.gps <= end:
                events.setdefault((event.name, event.gps), event)
        return sorted(events.values(), key=lambda event: (event.gps, event.name))

    def files(
        self, run: str, ifo: str, start: int, end: int, rate: int
    ) -> list[SourceFile]:
        """A detector's strain files that overlap a range of time, in order of time.

        Args:
            run: Observing run.
            ifo: Detector.
            start: Start of the range, GPS s.
            end: End of the range, GPS s.
            rate: Sample rate of the files, Hz.

        Raises:
            StrainError: Two files overlap, or GWOSC does not reply.
        """
        urls = self._ask(
            f"files of {run}",
            lambda: get_run_urls(
                run,
                ifo,
                # Ask for one file length more on either side, so that files across the
                # ends are listed however the server matches; filtered below.
                start - FILE_LENGTH,
                end + FILE_LENGTH,
                sample_rate=rate,
                host=self.host,
                pagesize=PAGE_SIZE,
            ),
        )
        files = []
        for url in set(urls):
            first, last = url_segment(url)
            if first < end and last > start:
                files.append(SourceFile(ifo, first, last, url))
        files.sort()
        for earlier, later in pairwise(files):
            if later.start < earlier.stop:
                raise StrainError(
                    f"{self.host}: expected files that do not overlap, found "
                    f"{earlier.name} and {later.name} in {run}; choose a range without "
                    "them"
                )
        return files

    def _ask(self, what: str, question: Callable[[], Answer]) -> Answer:
        """Send a request, and retry when no connection can be made.

        GWOSC's client itself retries after a transient HTTP status or a time-out of
        10 s, up to ten times, but not after a connection error.

        Args:
            what: Subject of the request, for the error message.
            question: Sends the request.

        Raises:
            StrainError: The request failed.
        """
        failure: Any
        try:
            return Retrying(
                retry=retry_if_exception_type(requests.ConnectionError),
                stop=stop_after_attempt(self.tries),
                wait=wait_exponential(self.wait),
                reraise=True,
            )(question)
        except RetryError as error:
            # From within GWOSC's client.
            last = error.last_attempt
            if last.failed:
                failure = last.exception()
            else:
                response = last.result()
                failure = f"HTTP status {response.status_code} from {response.url}"
        except (requests.RequestException, ValueError) as error:
            failure = error
        except (KeyError, TypeError) as error:
            failure = f"the answer lacks {error}"
        raise StrainError(
            f"asking {self.host} for {what} failed: {failure}; check the name and the "
            "network, and run the command again"
        )
