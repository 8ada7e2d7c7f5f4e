"""Stores a background run on disk: its plan, finished jobs and results."""

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from chirpwatch import __version__
from chirpwatch.api.contract.requests import (
    Block,
    BlockSlide,
)
from chirpwatch.atomic import replacing
from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.lock import locked
from chirpwatch.score_times import merger_ns
from chirpwatch.streamer.background.plan import (
    Plan,
    SlideJob,
)
from chirpwatch.streamer.timeslides import SlideEvents


@dataclass(frozen=True, eq=False)
class JobResult:
    """A job's events, in order of slide and stride.

    Attributes:
        slide: Index of each event's slide in the job, int32 [events].
        stride: Stride of each event's score in the stretch, int32 [events].
        statistic: Score of each event, float32 [events].
        delay: Time by which the stride's right edge lags the merger, s, float32
            [events].
        valid: Ranges of strides with valid scores: slide, begin and end of each, in
            order, int32 [ranges, 3].
    """

    slide: NDArray[Any]
    stride: NDArray[Any]
    statistic: NDArray[Any]
    delay: NDArray[Any]
    valid: NDArray[Any]

    @classmethod
    def of(cls, events: SlideEvents) -> Self:
        """Convert the server's response."""
        edges = np.diff(np.pad(events.valid.astype(np.int8), [(0, 0), (1, 1)]), axis=1)
        slide, begin = np.nonzero(edges == 1)
        end = np.nonzero(edges == -1)[1]
        return cls(
            slide=events.slide.astype(np.int32),
            stride=events.stride.astype(np.int32),
            statistic=events.statistic.astype(np.float32),
            delay=events.delay.astype(np.float32),
            valid=np.stack([slide, begin, end], axis=1).astype(np.int32),
        )

    def valid_strides(self, slides: int) -> NDArray[Any]:
        """Number of valid strides of each slide, int64 [slides]."""
        lengths = self.valid[:, 2] - self.valid[:, 1]
        counts = np.bincount(self.valid[:, 0], weights=lengths, minlength=slides)
        return counts.astype(np.int64)

    def block(self, plan: Plan, job: SlideJob) -> Block:
        """Request body of the job's result for the results API."""
        geometry, stretch = plan.geometry, plan.stretches[job.stretch]
        numbers = np.arange(len(job.shifts) + 1)
        events = np.searchsorted(self.slide, numbers)
        ranges = np.searchsorted(self.valid[:, 0], numbers)
        slides = []
        for i, frames in enumerate(job.shifts):
            event = slice(events[i], events[i + 1])
            shifts = shift_lengths(geometry, frames)
            slides.append(
                BlockSlide(
                    shifts=dict(zip(geometry.ifos, shifts, strict=True)),
                    valid=self.valid[ranges[i] : ranges[i + 1], 1:].tolist(),
                    strides=self.stride[event].tolist(),
                    delays=self.delay[event].tolist(),
                    statistics=self.statistic[event].tolist(),
                )
            )
        return Block(
            start_ns=stretch.start_ns,
            strides=stretch.strides,
            stride_ns=geometry.stride_ns,
            slides=slides,
        )


def shift_lengths(geometry: Geometry, frames: tuple[int, ...]) -> list[float]:
    """Convert a slide's shifts from feature frames to s; the first detector's is 0."""
    return [i * geometry.frame_size / geometry.sample_rate for i in (0, *frames)]


class RunDirectory:
    """The directory of a background run; a context manager.

    All files are written atomically, so that a run may be interrupted at any time and
    continued.

    Args:
        path: The directory; created if it does not exist.
        run: Identifier of the run, if a new run begins.
        plan: The plan.
        facts: Other input of the results, by name, such as the model's digest.

    Attributes:
        run: Identifier of the run; that of the earlier process if the run continues.
        plan: The plan.
        facts: Other input of the results.
        continued: Whether an earlier process began the run.

    Raises:
        ConfigurationError: On entry: another process uses the directory, or it has a
            run with another plan or other input.
    """

    def __init__(
        self, path: Path, run: str, plan: Plan, facts: Mapping[str, Any]
    ) -> None:
        self.path = path
        self.run = run
        self.plan = plan
        self.facts = dict(facts)
        self.continued = False

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        in_use = ConfigurationError(
            f"{self.path} is in use by another background run; wait for it, or give "
            "this one a directory of its own with --directory"
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.path / ".lock", in_use))
            self._begin_or_continue()
            self._lock = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.close()

    def _begin_or_continue(self) -> None:
        path = self.path / "plan.json"
        expected = json.loads(json.dumps(self.facts | _describe(self.plan)))
        if not path.exists():
            body = {"run": self.run, "version": __version__} | expected
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(body, indent=1) + "\n")
            return
        try:
            stored = json.loads(path.read_text())
            self.run = stored["run"]
            differing = [name for name in expected if stored[name] != expected[name]]
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"{path}: expected the plan of a background run, found something else "
                f"({type(error).__name__}: {error}); give another --directory"
            ) from None
        if differing:
            name = differing[0]
            raise ConfigurationError(
                f"{self.path} holds the results of another {name.replace('_', ' ')}: "
                f"expected {_short(expected[name])}, found {_short(stored[name])}; to "
                "begin a new run, give another --directory"
            )
        self.continued = True

    def done(self) -> list[int]:
        """Numbers of the jobs with a complete result, ascending."""
        return [job.number for job in self.plan.jobs if self._load(job) is not None]

    def save(self, number: int, result: JobResult) -> None:
        """Store a job's result."""
        with replacing(self._file(number)) as temporary, temporary.open("wb") as file:
            np.savez(file, **asdict(result))

    def load(self, number: int) -> JobResult:
        """Load a finished job's result.

        Raises:
            ConfigurationError: The result is missing or damaged.
        """
        result = self._load(self.plan.jobs[number])
        if result is None:
            raise ConfigurationError(
                f"{self._file(number)}: expected a job's result, found no file or a "
                "damaged one; give the same command to compute it again"
            )
        return result

    def _file(self, number: int) -> Path:
        return self.path / "jobs" / f"{number:06d}.npz"

    def _load(self, job: SlideJob) -> JobResult | None:
        """Load a job's result; None if it is missing or damaged."""
        try:
            content = self._file(job.number).read_bytes()
            with np.load(io.BytesIO(content)) as arrays:
                return JobResult(
                    **{field.name: arrays[field.name] for field in fields(JobResult)}
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def finish(self) -> Path:
        """Write the results of all jobs into a single HDF5 file, atomically.

        The datasets do not depend on the order in which jobs finished.

        Returns:
            Path of the file.

        Raises:
            ConfigurationError: A job's result is missing or damaged.
        """
        target = self.path / "background.hdf5"
        plan, geometry = self.plan, self.plan.geometry
        columns: dict[str, list[NDArray[Any]]] = {}
        first = 0
        for job, result in self.results():
            stretch = plan.stretches[job.stretch]
            size, slides = len(result.slide), len(job.shifts)
            time_ns = merger_ns(
                stretch.start_ns, geometry.stride_ns, result.stride, result.delay
            )
            shifts = [shift_lengths(geometry, frames) for frames in job.shifts]
            livetime = result.valid_strides(slides) * geometry.stride_length
            for name, part in {
                "events/statistic": result.statistic,
                "events/time_ns": time_ns,
                "events/stride": result.stride,
                "events/slide": result.slide + np.int32(first),
                "events/stretch": np.full(size, job.stretch, np.int32),
                "slides/shifts": np.array(shifts),
                "slides/livetime": livetime,
                "slides/stretch": np.full(slides, job.stretch, np.int32),
            }.items():
                columns.setdefault(name, []).append(part)
            first += slides
        with replacing(target) as temporary, h5py.File(temporary, "w") as file:
            for name, parts in columns.items():
                file[name] = np.concatenate(parts)
            file["stretches/start_ns"] = [
                stretch.start_ns for stretch in plan.stretches
            ]
            file["stretches/strides"] = [stretch.strides for stretch in plan.stretches]
            file.attrs.update(
                model=self.facts["model"],
                geometry=geometry.to_json(),
                simulated=self.facts["simulated"],
                chirpwatch=__version__,
                livetime=float(file["slides/livetime"][:].sum()),
            )
        return target

    def results(self) -> Iterator[tuple[SlideJob, JobResult]]:
        """Yield each job with its result, in order; loads one result at a time."""
        for job in self.plan.jobs:
            yield job, self.load(job.number)


def _describe(plan: Plan) -> dict[str, Any]:
    """The values that identify a plan; the first that differs is reported."""
    return {
        "geometry": json.loads(plan.geometry.to_json()),
        "step": plan.step,
        "livetime": plan.livetime,
        "stretches": [asdict(stretch) for stretch in plan.stretches],
        "jobs": [asdict(job) for job in plan.jobs],
    }


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
