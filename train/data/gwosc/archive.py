"""What GWOSC's web interface (version 2) says: runs, good times, events and files."""

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
FILE_LENGTH = 4096
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Event:
    """A catalogued event.

    Attributes:
        name: Its name.
        gps: Its time, GPS s.
        catalog: The catalogue that gives this time.
    """

    name: str
    gps: float
    catalog: str


@dataclass(frozen=True, order=True)
class SourceFile:
    """A strain file in the archive.

    Attributes:
        ifo: Its detector.
        start, stop: The time that it covers, GPS s.
        url: Where it is.
    """

    ifo: str
    start: int
    stop: int
    url: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[-1]


class Archive:
    """Questions to GWOSC; over a failing network they are asked again.

    Args:
        host: URL of the server.
        tries: How often a question is asked while no connection can be made.
        wait: Before it is asked the second time, s; it doubles from time to time.
    """

    def __init__(self, host: str, tries: int, wait: float) -> None:
        # The client keeps each answer as long as the process lives.
        v2.JSON_CACHE.clear()
        self.host = host.rstrip("/")
        self.tries = tries
        self.wait = wait

    def run_span(
        self, run: str | None, start: int | None, end: int | None, ifos: Iterable[str]
    ) -> tuple[str, int, int]:
        """The run that holds a range, and the range, GPS s.

        Args:
            run: Its name; without one, the run of these detectors that holds the range.
            start: Begin of the range; without one, of the run.
            end: End of the range; without one, of the run.
            ifos: Detectors that the run must have.

        Raises:
            StrainError: There is no such run, or the range is not within it.
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
                f"{self.host}: expected a run of {', '.join(ifos)}, found no {run}; "
                f"there are {listed or 'none'}"
            )
        candidates = spans if run is None else {run: spans[run]}
        for name, (first, last) in candidates.items():
            begin, stop = start or first, end or last
            if first <= begin < stop <= last:
                return name, begin, stop
        raise StrainError(
            f"{self.host}: expected a range within one run of {', '.join(ifos)}, found "
            f"{start} to {end}; the runs are {listed or 'none'}"
        )

    def good_times(self, flag: str, start: int, end: int) -> SegmentList:
        """When a data-quality flag, such as ``H1_CBC_CAT3``, is on within a range."""
        found = self._ask(
            f"the flag {flag}",
            lambda: get_segments(flag, start, end, host=self.host, pagesize=PAGE_SIZE),
        )
        times = SegmentList(Segment(*map(int, segment)) for segment in found)
        return times.coalesce() & SegmentList([Segment(start, end)])

    def events(self, start: float, end: float) -> list[Event]:
        """The events of all catalogues within a range, in order of time.

        Versions of an event that differ in time are all listed. Catalogues of marginal
        events count: what may be a signal is no background.
        """
        found = self._ask(
            "events",
            lambda: list(
                v2.fetch_event_versions(
                    segment=(start, end), host=self.host, pagesize=PAGE_SIZE
                )
            ),
        )
        events: dict[tuple[str, float], Event] = {}
        for each in found:
            event = Event(each["name"], float(each["gps"]), each["catalog"])
            if start <= event.gps <= end:
                events.setdefault((event.name, event.gps), event)
        return sorted(events.values(), key=lambda event: (event.gps, event.name))

    def files(
        self, run: str, ifo: str, start: int, end: int, rate: int
    ) -> list[SourceFile]:
        """The strain files of a detector that overlap a range, in order of time.

        Raises:
            StrainError: Two files cover the same time.
        """
        urls = self._ask(
            f"files of {run}",
            lambda: get_run_urls(
                run,
                ifo,
                # A file wider: whatever the server takes a range to mean, it then
                # lists the files that reach over its ends; the others go below.
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
        for one, other in pairwise(files):
            if other.start < one.stop:
                raise StrainError(
                    f"{self.host}: expected one file for each time, found {one.name} "
                    f"and {other.name} in {run}"
                )
        return files

    def _ask(self, what: str, question: Callable[[], Answer]) -> Answer:
        """The answer to a question.

        After a status that may pass, or no answer in 10 s, GWOSC's client itself asks
        again, ten times in all; after a failing connection it does not.
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
