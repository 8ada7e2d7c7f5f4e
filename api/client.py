"""A typed client: sends what `contract.requests` has, returns `contract.answers`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from chirpwatch.api.contract.answers import (
    BackgroundAnswer,
    CandidateDetail,
    Candidates,
    Comparison,
    Drift,
    EfficiencyAnswer,
    Events,
    FarAnswer,
    IfarAnswer,
    InjectionsAnswer,
    QTransform,
    Scores,
    Slide,
    VetoAnswer,
    VetoDetail,
    VolumesAnswer,
    Whitened,
)
from chirpwatch.api.contract.requests import (
    Block,
    Chunk,
    EventKind,
    InjectionSet,
    Run,
    RunUpdate,
    Strain,
    Stream,
    Veto,
)
from chirpwatch.api.contract.status import (
    BlockAnswer,
    Health,
    Runs,
    RunStatus,
    Stored,
    StreamAnswer,
)
from chirpwatch.atomic import replacing
from chirpwatch.errors import ApiError

Model = TypeVar("Model", bound=BaseModel)
Content = TypeVar("Content")
PAGE = 10_000
"""Most items that the API answers at a time."""
QueryValue = str | float | list[str] | list[float]


class ApiUnavailable(ApiError):
    """The API cannot be reached or is too busy: the same request may work later."""


class ApiRefused(ApiError):
    """The API understood the request and will not do it: repeating it won't help.

    Attributes:
        status: HTTP status, such as 409 for a contradiction with what is stored.
        kind: The problem's `type`, such as `urn:chirpwatch:conflict`.
    """

    def __init__(self, message: str, status: int, kind: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class ApiClient:
    """Talks to one API; a context manager, safe to use from several threads.

    Every method raises ``ApiUnavailable`` or ``ApiRefused``. The `put_` methods may be
    repeated freely; they return whether the content was new.

    Args:
        url: Where the API is, such as `http://127.0.0.1:8080`.
        token: Token for writing, if the API wants one.
        timeout: Longest wait for an answer, s.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0):
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # No proxy of the environment stands between parts of one machine or cluster.
        self._http = httpx.Client(headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Writing

    def put_run(self, run_id: str, run: Run) -> bool:
        """Register a run."""
        return self._put(f"/v1/runs/{run_id}", run.model_dump_json())

    def update_run(self, run_id: str, update: RunUpdate) -> RunStatus:
        """Report the state, throughput or latency of a run."""
        body = update.model_dump_json(exclude_none=True)
        response = self._request("PATCH", f"/v1/runs/{run_id}", body)
        return _read(TypeAdapter(RunStatus), response)

    def put_stream(self, run_id: str, stream_id: str, stream: Stream) -> bool:
        """Declare a stream."""
        path = f"/v1/runs/{run_id}/streams/{stream_id}"
        return self._put(path, stream.model_dump_json())

    def put_chunk(self, run_id: str, stream_id: str, number: int, chunk: Chunk) -> bool:
        """Store a chunk."""
        path = f"/v1/runs/{run_id}/streams/{stream_id}/chunks/{number}"
        return self._put(path, chunk.model_dump_json())

    def put_block(self, run_id: str, number: int, block: Block) -> bool:
        """Store a block of background."""
        path = f"/v1/runs/{run_id}/background/{number}"
        return self._put(path, block.model_dump_json())

    def put_injections(self, run_id: str, name: str, injections: InjectionSet) -> bool:
        """Store a set of injections, all of them at once."""
        path = f"/v1/runs/{run_id}/injections/{name}"
        return self._put(path, injections.model_dump_json())

    def put_strain(self, run_id: str, start_ns: int, strain: Strain) -> bool:
        """Store strain around an event, from GPS `start_ns` on."""
        path = f"/v1/runs/{run_id}/strain/{start_ns}"
        return self._put(path, strain.model_dump_json())

    def put_veto(self, run_id: str, name: str, veto: Veto) -> bool:
        """Take segments out of events and livetime; replaces a list of this name.

        Returns whether anything changed.
        """
        return self._put(f"/v1/runs/{run_id}/vetoes/{name}", veto.model_dump_json())

    def delete_veto(self, run_id: str, name: str) -> None:
        """Take a list of vetoed segments back."""
        self._request("DELETE", f"/v1/runs/{run_id}/vetoes/{name}")

    # Reading

    def health(self) -> Health:
        """Ask whether the API and its database answer."""
        return self._get(Health, "/healthz")

    def runs(self, limit: int = 100, offset: int = 0) -> Runs:
        """Runs, the newest first."""
        return self._get(Runs, "/v1/runs", limit=limit, offset=offset)

    def run(self, run_id: str) -> RunStatus:
        """A run with its livetimes and counts."""
        return self._get(RunStatus, f"/v1/runs/{run_id}")

    def compare(self, run_ids: Sequence[str], far_per_year: float = 12.0) -> Comparison:
        """Runs side by side at one false-alarm rate."""
        query: dict[str, QueryValue] = {
            "run": list(run_ids),
            "far_per_year": far_per_year,
        }
        return self._get(Comparison, "/v1/compare", **query)

    def streams(self, run_id: str) -> list[StreamAnswer]:
        """The streams of a run; `next_number` says where to resume."""
        response = self._request("GET", f"/v1/runs/{run_id}/streams")
        return _read(TypeAdapter(list[StreamAnswer]), response)

    def far(
        self,
        run_id: str,
        statistic: float,
        observing_time: float | None = None,
        model: str | None = None,
    ) -> FarAnswer:
        """False-alarm rate of a statistic, and its significance.

        Args:
            run_id: The run.
            statistic: Detection statistic.
            observing_time: Time that was searched, s; the zero-lag livetime if None.
            model: Digest of the model that gave the statistic; refused where the run's
                is another.
        """
        return self._get(
            FarAnswer,
            f"/v1/runs/{run_id}/far",
            statistic=statistic,
            observing_time=observing_time,
            model=model,
        )

    def vetoes(self, run_id: str) -> list[VetoAnswer]:
        """The lists of vetoed segments, by name."""
        response = self._request("GET", f"/v1/runs/{run_id}/vetoes")
        return _read(TypeAdapter(list[VetoAnswer]), response)

    def veto(self, run_id: str, name: str) -> VetoDetail:
        """One list of vetoed segments."""
        return self._get(VetoDetail, f"/v1/runs/{run_id}/vetoes/{name}")

    def ifar(self, run_id: str) -> IfarAnswer:
        """The IFAR curve of the background."""
        return self._get(IfarAnswer, f"/v1/runs/{run_id}/ifar")

    def candidates(
        self,
        run_id: str,
        limit: int = 50,
        offset: int = 0,
        merger_rate: float | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Candidates:
        """Zero-lag events, loudest first.

        Args:
            run_id: The run.
            limit: Most events.
            offset: Events to pass over.
            merger_rate: Mergers per Gpc^3 and year, to ask for the odds of each.
            start_ns: Only those from this GPS time on, ns.
            stop_ns: Only those up to this GPS time, ns.
        """
        return self._get(
            Candidates,
            f"/v1/runs/{run_id}/candidates",
            limit=limit,
            offset=offset,
            merger_rate=merger_rate,
            start_ns=start_ns,
            stop_ns=stop_ns,
        )

    def candidate(self, run_id: str, time_ns: int) -> CandidateDetail:
        """The zero-lag event at a time, and what is around it."""
        return self._get(CandidateDetail, f"/v1/runs/{run_id}/candidates/{time_ns}")

    def whitened(self, run_id: str, time_ns: int) -> Whitened:
        """Whitened strain around a candidate."""
        path = f"/v1/runs/{run_id}/candidates/{time_ns}/whitened"
        return self._get(Whitened, path)

    def q_transform(self, run_id: str, time_ns: int, ifo: str) -> QTransform:
        """Q-transform of a detector's strain around a candidate."""
        path = f"/v1/runs/{run_id}/candidates/{time_ns}/q-transform/{ifo}"
        return self._get(QTransform, path)

    def drift(self, run_id: str, last: float = 3600.0) -> Drift:
        """The newest `last` seconds of zero-lag events against background."""
        return self._get(Drift, f"/v1/runs/{run_id}/drift", last=last)

    def background(
        self, run_id: str, limit: int = 1000, offset: int = 0
    ) -> BackgroundAnswer:
        """Counts and livetime of the background, slide by slide, loudest first."""
        path = f"/v1/runs/{run_id}/background"
        return self._get(BackgroundAnswer, path, limit=limit, offset=offset)

    def slides(self, run_id: str) -> list[Slide]:
        """Every slide of the background, by its shifts."""
        slides: list[Slide] = []
        while True:
            page = self.background(run_id, limit=PAGE, offset=len(slides))
            slides += page.slides
            if not page.slides or len(slides) >= page.total:
                return sorted(slides, key=lambda slide: sorted(slide.shifts.items()))

    def blocks(self, run_id: str) -> list[BlockAnswer]:
        """The blocks of background that are there, by number."""
        response = self._request("GET", f"/v1/runs/{run_id}/background/blocks")
        return _read(TypeAdapter(list[BlockAnswer]), response)

    def injections(
        self,
        run_id: str,
        far_per_year: float,
        limit: int = 200_000,
        offset: int = 0,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> InjectionsAnswer:
        """Injections found and missed at a false-alarm rate.

        Args:
            run_id: The run.
            far_per_year: False-alarm rate, per Julian year.
            limit: Most injections to list, of both; all are counted.
            offset: Injections to pass over.
            start_ns: List those from this GPS time on, ns.
            stop_ns: List those up to this GPS time, ns.
        """
        path = f"/v1/runs/{run_id}/injections"
        return self._get(
            InjectionsAnswer,
            path,
            far_per_year=far_per_year,
            limit=limit,
            offset=offset,
            start_ns=start_ns,
            stop_ns=stop_ns,
        )

    def efficiency(
        self, run_id: str, far_per_year: float, by: str = "snr", bins: int = 10
    ) -> EfficiencyAnswer:
        """Share of the injections found in bins of a parameter."""
        path = f"/v1/runs/{run_id}/efficiency"
        return self._get(
            EfficiencyAnswer, path, far_per_year=far_per_year, by=by, bins=bins
        )

    def volume(self, run_id: str, far_per_year: Sequence[float]) -> VolumesAnswer:
        """Sensitive volumes at false-alarm rates, for four pairs of masses."""
        path = f"/v1/runs/{run_id}/volume"
        return self._get(VolumesAnswer, path, far_per_year=list(far_per_year))

    def events(
        self, run_id: str, kind: EventKind, limit: int = 1000, offset: int = 0
    ) -> Events:
        """Events of one kind, loudest first."""
        path = f"/v1/runs/{run_id}/events"
        return self._get(Events, path, kind=kind, limit=limit, offset=offset)

    def scores(self, run_id: str, **query: str | int) -> Scores:
        """Thinned scores; `stream` or `kind`, `start_ns`, `stop_ns`, `points`."""
        return self._get(Scores, f"/v1/runs/{run_id}/scores", **query)

    def export(self, run_id: str, path: str | Path) -> None:
        """Write all of a run to an HDF5 file, which appears whole or not at all."""
        address = f"{self.url}/v1/runs/{run_id}/export.hdf5"
        with (
            replacing(Path(path)) as temporary,
            self._reached(),
            # A large run takes its time before the first byte.
            self._http.stream("GET", address, timeout=None) as response,
        ):
            if not response.is_success:
                response.read()
                raise _refusal("GET", address, response)
            with temporary.open("wb") as file:
                for part in response.iter_bytes():
                    file.write(part)

    # Underneath

    def _put(self, path: str, body: str) -> bool:
        return _read(TypeAdapter(Stored), self._request("PUT", path, body)).changed

    def _get(
        self, model: type[Model], path: str, /, **query: QueryValue | None
    ) -> Model:
        asked = {name: value for name, value in query.items() if value is not None}
        response = self._request("GET", path, query=asked)
        return _read(TypeAdapter(model), response)

    def _request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        query: Mapping[str, QueryValue] | None = None,
    ) -> httpx.Response:
        headers = {} if body is None else {"Content-Type": "application/json"}
        with self._reached():
            response = self._http.request(
                method,
                self.url + path,
                content=body,
                headers=headers,
                params=query,
            )
        if response.is_success:
            return response
        raise _refusal(method, self.url + path, response)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say of a request that gets no answer what that means."""
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ApiError(f"{self.url}: not an address of an API ({error})") from None
        except httpx.TransportError as error:
            raise ApiUnavailable(
                f"no API at {self.url} ({type(error).__name__}: {error}); "
                "is it running? `chirpwatch api --help` says how to start it"
            ) from None


def _refusal(method: str, address: str, response: httpx.Response) -> ApiError:
    """What an answer that is none means."""
    try:
        problem = response.json()
        kind, detail = str(problem["type"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        kind, detail = "about:blank", response.text[:200]
    message = f"{method} {address}: {response.status_code}, {detail}"
    if response.status_code in {502, 503, 504}:
        return ApiUnavailable(message)
    return ApiRefused(message, response.status_code, kind)


def _read(adapter: TypeAdapter[Content], response: httpx.Response) -> Content:
    try:
        return adapter.validate_json(response.content)
    except ValidationError as error:
        raise ApiError(
            f"{response.url}: not an answer of a chirpwatch API of this version "
            f"({error.error_count()} faults, the first: {error.errors()[0]['msg']})"
        ) from None
