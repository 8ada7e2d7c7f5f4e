"""Typed client of the API: sends and returns the models of `api.contract`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from chirpwatch.api.contract.answers import (
    BackgroundAnswer,
    DriftAnswer,
    Events,
    FarAnswer,
    IfarAnswer,
    ScoresAnswer,
    SlideAnswer,
    VetoAnswer,
    VetoDetail,
)
from chirpwatch.api.contract.candidate_answers import (
    CandidateDetail,
    Candidates,
    QTransform,
    Whitened,
)
from chirpwatch.api.contract.fields import EventKind
from chirpwatch.api.contract.injection_answers import (
    Comparison,
    EfficiencyAnswer,
    InjectionsAnswer,
    VolumesAnswer,
)
from chirpwatch.api.contract.injection_set import InjectionSet
from chirpwatch.api.contract.requests import (
    Block,
    Chunk,
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
PAGE_SIZE = 10_000
"""Most items that the API returns at a time."""

QueryValue = str | float | list[str] | list[float]


class ApiUnavailable(ApiError):
    """The API cannot be reached or is too busy; the same request may succeed later."""


class ApiRefused(ApiError):
    """The API refuses the request; repeating it will not help.

    Attributes:
        status: HTTP status, such as 409 for a conflict with stored data.
        kind: The problem's `type`, such as `urn:chirpwatch:conflict`.
    """

    def __init__(self, message: str, status: int, kind: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class ApiClient:
    """Client of one API; a context manager, safe to share between threads.

    Every method raises ``ApiUnavailable`` or ``ApiRefused``. The `put_` methods may be
    repeated; they return whether the request changed stored data.

    Args:
        url: Address of the API, such as `http://127.0.0.1:8080`.
        token: Token for writing, if the API needs one.
        timeout: Longest wait for a response, s.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0):
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # The environment's proxy is not meant for connections within a cluster.
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
        """Update a run's state, throughput or latency."""
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
        """Store an injection set with all its injections."""
        path = f"/v1/runs/{run_id}/injections/{name}"
        return self._put(path, injections.model_dump_json())

    def put_strain(self, run_id: str, start_ns: int, strain: Strain) -> bool:
        """Store strain around an event, from GPS time `start_ns` on."""
        path = f"/v1/runs/{run_id}/strain/{start_ns}"
        return self._put(path, strain.model_dump_json())

    def put_veto(self, run_id: str, name: str, veto: Veto) -> bool:
        """Store a veto, which removes its segments from events and livetime.

        It replaces a veto with the same name.
        """
        return self._put(f"/v1/runs/{run_id}/vetoes/{name}", veto.model_dump_json())

    def delete_veto(self, run_id: str, name: str) -> None:
        """Delete a veto, which restores its events and livetime."""
        self._request("DELETE", f"/v1/runs/{run_id}/vetoes/{name}")

    # Reading

    def health(self) -> Health:
        """Check that the API reaches its database."""
        return self._get(Health, "/healthz")

    def runs(self, limit: int = 100, offset: int = 0) -> Runs:
        """List runs, newest first."""
        return self._get(Runs, "/v1/runs", limit=limit, offset=offset)

    def run(self, run_id: str) -> RunStatus:
        """Get a run with the livetime and events of each kind of data."""
        return self._get(RunStatus, f"/v1/runs/{run_id}")

    def compare(self, run_ids: Sequence[str], far_per_year: float = 12.0) -> Comparison:
        """Compare runs at one false-alarm rate."""
        query: dict[str, QueryValue] = {
            "run": list(run_ids),
            "far_per_year": far_per_year,
        }
        return self._get(Comparison, "/v1/compare", **query)

    def streams(self, run_id: str) -> list[StreamAnswer]:
        """List the streams of a run; `next_number` is where to resume."""
        response = self._request("GET", f"/v1/runs/{run_id}/streams")
        return _read(TypeAdapter(list[StreamAnswer]), response)

    def far(
        self,
        run_id: str,
        statistic: float,
        observing_time: float | None = None,
        model: str | None = None,
    ) -> FarAnswer:
        """Get the false-alarm rate and significance of a statistic.

        Args:
            run_id: The run.
            statistic: Detection statistic.
            observing_time: Time searched, s; the zero-lag livetime if None.
            model: Digest of the model that gave the statistic; refused if the run has
                another model.
        """
        return self._get(
            FarAnswer,
            f"/v1/runs/{run_id}/far",
            statistic=statistic,
            observing_time=observing_time,
            model=model,
        )

    def vetoes(self, run_id: str) -> list[VetoAnswer]:
        """List the vetoes of a run, by name."""
        response = self._request("GET", f"/v1/runs/{run_id}/vetoes")
        return _read(TypeAdapter(list[VetoAnswer]), response)

    def veto(self, run_id: str, name: str) -> VetoDetail:
        """Get a veto with its segments."""
        return self._get(VetoDetail, f"/v1/runs/{run_id}/vetoes/{name}")

    def ifar(self, run_id: str) -> IfarAnswer:
        """Get the curve of IFAR against statistic."""
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
        """List zero-lag events with their rates, loudest first.

        Args:
            run_id: The run.
            limit: Most events to list.
            offset: Events to skip.
            merger_rate: Mergers per Gpc^3 and year, to get the odds of each event.
            start_ns: First GPS time, ns.
            stop_ns: Last GPS time, ns.
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
        """Get the candidate at GPS time `time_ns`, and what lies near it."""
        return self._get(CandidateDetail, f"/v1/runs/{run_id}/candidates/{time_ns}")

    def whitened(self, run_id: str, time_ns: int) -> Whitened:
        """Get the whitened strain around a candidate."""
        path = f"/v1/runs/{run_id}/candidates/{time_ns}/whitened"
        return self._get(Whitened, path)

    def q_transform(self, run_id: str, time_ns: int, ifo: str) -> QTransform:
        """Get the Q-transform of a detector's strain around a candidate."""
        path = f"/v1/runs/{run_id}/candidates/{time_ns}/q-transform/{ifo}"
        return self._get(QTransform, path)

    def drift(self, run_id: str, last: float = 3600.0) -> DriftAnswer:
        """Compare the newest `last` seconds of zero-lag data with background."""
        return self._get(DriftAnswer, f"/v1/runs/{run_id}/drift", last=last)

    def background(
        self, run_id: str, limit: int = 1000, offset: int = 0
    ) -> BackgroundAnswer:
        """Get the background's livetime and timeslides, loudest first."""
        path = f"/v1/runs/{run_id}/background"
        return self._get(BackgroundAnswer, path, limit=limit, offset=offset)

    def slides(self, run_id: str) -> list[SlideAnswer]:
        """List all timeslides of the background, by their shifts."""
        slides: list[SlideAnswer] = []
        while True:
            page = self.background(run_id, limit=PAGE_SIZE, offset=len(slides))
            slides += page.slides
            if not page.slides or len(slides) >= page.total:
                return sorted(slides, key=lambda slide: sorted(slide.shifts.items()))

    def blocks(self, run_id: str) -> list[BlockAnswer]:
        """List the stored blocks of background, by number."""
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
        """Get the injections found and missed at a false-alarm rate.

        Args:
            run_id: The run.
            far_per_year: False-alarm rate, per Julian year.
            limit: Most injections to list, in total; all are counted.
            offset: Injections to skip.
            start_ns: First GPS time to list, ns.
            stop_ns: Last GPS time to list, ns.
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
        """Get the fraction of injections found, in bins of a parameter."""
        path = f"/v1/runs/{run_id}/efficiency"
        return self._get(
            EfficiencyAnswer, path, far_per_year=far_per_year, by=by, bins=bins
        )

    def volume(self, run_id: str, far_per_year: Sequence[float]) -> VolumesAnswer:
        """Get the sensitive volumes at false-alarm rates, for four pairs of masses."""
        path = f"/v1/runs/{run_id}/volume"
        return self._get(VolumesAnswer, path, far_per_year=list(far_per_year))

    def events(
        self, run_id: str, kind: EventKind, limit: int = 1000, offset: int = 0
    ) -> Events:
        """List events of one kind, loudest first."""
        path = f"/v1/runs/{run_id}/events"
        return self._get(Events, path, kind=kind, limit=limit, offset=offset)

    def scores(self, run_id: str, **query: str | int) -> ScoresAnswer:
        """Get thinned scores.

        Args:
            run_id: The run.
            query: `stream` or `kind`, `start_ns`, `stop_ns` and `points` of the route.
        """
        return self._get(ScoresAnswer, f"/v1/runs/{run_id}/scores", **query)

    def export(self, run_id: str, path: str | Path) -> None:
        """Download a run as an HDF5 file.

        The file replaces `path` only when it is complete.
        """
        address = f"{self.url}/v1/runs/{run_id}/export.hdf5"
        with (
            replacing(Path(path)) as temporary,
            self._translated_errors(),
            # A large run takes long before the first byte.
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
        given = {name: value for name, value in query.items() if value is not None}
        response = self._request("GET", path, query=given)
        return _read(TypeAdapter(model), response)

    def _request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        query: Mapping[str, QueryValue] | None = None,
    ) -> httpx.Response:
        headers = {} if body is None else {"Content-Type": "application/json"}
        with self._translated_errors():
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
    def _translated_errors(self) -> Iterator[None]:
        """Turn httpx errors of a request without a response into the project's own.

        Raises:
            ApiError: The address is not valid.
            ApiUnavailable: The API cannot be reached.
        """
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ApiError(
                f"{self.url}: expected an address such as "
                f"http://127.0.0.1:8080 ({error})"
            ) from None
        except httpx.TransportError as error:
            raise ApiUnavailable(
                f"no API at {self.url} ({type(error).__name__}: {error}); "
                "is it running? `chirpwatch api --help` says how to start it"
            ) from None


def _refusal(method: str, address: str, response: httpx.Response) -> ApiError:
    """Make the error for a response that is not a success."""
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
            f"{response.url}: expected an answer of a chirpwatch API of this version, "
            f"found {error.error_count()} faults, first: {error.errors()[0]['msg']}"
        ) from None
