"""Background from the open data of the Gravitational Wave Open Science Center.

``fetch`` asks GWOSC when all detectors had good data, downloads what covers that time,
and writes a background file. It works in a directory beside the file, ``OUT.parts``,
where every finished download is kept until the file is whole.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from gwpy.segments import SegmentList

from chirpwatch.atomic import (
    replacing,
    sync,
)
from chirpwatch.errors import StrainError
from chirpwatch.lock import locked
from chirpwatch.train.data.gwosc.archive import SourceFile
from chirpwatch.train.data.gwosc.choice import make_plan
from chirpwatch.train.data.gwosc.files import (
    Network,
    full_disk_told,
    make_part,
    read_part,
)
from chirpwatch.train.data.gwosc.plan import (
    FetchSettings,
    Plan,
    PlannedSegment,
    check_disjoint,
)
from chirpwatch.train.data.gwosc.writer import (
    covered,
    write_segments,
)

TIMEOUT = 30.0


@dataclass(frozen=True)
class Progress:
    """How far a fetch is.

    Attributes:
        files_done, files: Files that are finished, of all.
        received: Bytes that this run has downloaded.
    """

    files_done: int
    files: int
    received: int


@dataclass(frozen=True)
class Fetched:
    """What was written.

    Attributes:
        plan: What was wanted.
        segments: What there was: the plan without what gaps in the data took away.
    """

    plan: Plan
    segments: tuple[PlannedSegment, ...]


def fetch(
    out: str | Path,
    settings: FetchSettings,
    *,
    jobs: int = 4,
    tries: int = 5,
    wait: float = 1.0,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
) -> Fetched:
    """Write a background file from GWOSC's data; it appears whole or not at all.

    A fetch that ended early goes on where it was when it is called again with the same
    settings, by the plan that it made then. Each job needs memory for one file, about
    0.3 GB for 4096 s at 4096 Hz and 0.7 GB at 16384 Hz, whatever the livetime; the
    directory of parts takes as much disk as the file.

    Args:
        out: The file, HDF5: ``{train,valid,test}/{t0}-{duration}/{ifo}``, float64, and
            ``events/{name,gps,catalog}``.
        settings: What to take.
        jobs: Files that are downloaded and resampled at a time.
        tries: How often a request that fails, or a file that comes damaged, is tried.
        wait: Before the second time, s; it doubles from time to time.
        command: How this was called, for the file's attributes.
        progress: Called as files and bytes come in, by several threads in turn.

    Raises:
        StrainError: ``out`` is there; another fetch is at work on it, or began it with
            other settings; the plan cannot be made; a file cannot be had or is
            damaged; nothing is left of a split; or the disk is full or cannot be
            written.
        KeyboardInterrupt: As elsewhere; what was finished is kept.
    """
    out = Path(out)
    parts = out.with_name(f"{out.name}.parts")
    with full_disk_told(parts):
        if out.exists():
            raise StrainError(
                f"{out}: is there already; remove it, or choose another name"
            )
    with full_disk_told(parts), _locked(parts):
        plan = _plan(parts, settings, tries, wait)
        _check_space(parts, plan)
        paths = {file: parts / f"{Path(file.name).stem}.part" for file in plan.files}
        available = _download_all(plan, paths, jobs, tries, wait, progress)
        segments = covered(plan, available)
        whole = parts / "whole.hdf5"
        with replacing(whole) as temporary:
            write_segments(temporary, plan, segments, paths, command)
        if out.exists():
            raise StrainError(f"{out}: appeared meanwhile; it stays as it is")
        whole.replace(out)
        # The parts may go once nothing can undo the file.
        sync(out.parent)
        shutil.rmtree(parts)
    return Fetched(plan, segments)


@contextmanager
def _locked(parts: Path) -> Iterator[None]:
    """Own the directory of parts; one without a plan is removed at the end."""
    parts.mkdir(parents=True, exist_ok=True)
    lock = parts / "lock"
    at_work = StrainError(f"{parts}: another fetch is at work there; wait for it")
    with locked(lock, at_work):
        try:
            yield
        finally:
            if parts.exists() and not (parts / "plan.json").exists():
                lock.unlink()
                with suppress(OSError):
                    parts.rmdir()


def _plan(parts: Path, settings: FetchSettings, tries: int, wait: float) -> Plan:
    """The plan that a fetch began with, or a new one."""
    path = parts / "plan.json"
    if not path.exists():
        plan = make_plan(settings, tries, wait)
        with replacing(path) as temporary:
            temporary.write_text(plan.to_json())
        return plan
    # Of a fetch that was killed: what was not finished has a name of its own.
    for leftover in parts.glob(".*"):
        leftover.unlink()
    try:
        plan = Plan.from_json(path.read_text())
    except (ValueError, KeyError, TypeError) as error:
        raise StrainError(
            f"{path}: expected the plan of a fetch: {error}; remove {parts}"
        ) from None
    check_disjoint(plan.segments)
    kept = asdict(plan.settings)
    changed = [
        f"{name} {value}, found {kept[name]}"
        for name, value in asdict(settings).items()
        if value != kept[name]
    ]
    if changed:
        raise StrainError(
            f"{parts}: holds a fetch with other settings; expected "
            f"{'; '.join(changed)}; use those, or remove the directory"
        )
    return plan


def _check_space(parts: Path, plan: Plan) -> None:
    """The parts and the file hold the strain once each."""
    kept = sum(path.stat().st_size for path in parts.iterdir())
    needed = 2 * plan.strain_bytes - kept
    free = shutil.disk_usage(parts).free
    if free < needed:
        raise StrainError(
            f"{parts}: expected room for {needed / 1e6:.0f} MB, found "
            f"{free / 1e6:.0f} MB free; make room, or take a shorter --livetime"
        )


def _download_all(
    plan: Plan,
    paths: Mapping[SourceFile, Path],
    jobs: int,
    tries: int,
    wait: float,
    progress: Callable[[Progress], None],
) -> dict[SourceFile, SegmentList]:
    """Make the parts that are missing.

    Returns:
        For each file the times that its part holds.
    """
    stop, lock = threading.Event(), threading.Lock()
    done = received = 0

    def count(files: int, size: int) -> None:
        nonlocal done, received
        with lock:
            done, received = done + files, received + size
            progress(Progress(done, len(paths), received))

    network = Network(tries, wait, stop, lambda size: count(0, size))
    available = {}
    with (
        ThreadPoolExecutor(jobs) as pool,
        httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client,
    ):

        def part(file: SourceFile) -> SegmentList:
            times = read_part(paths[file], file)
            if times is None:
                make_part(file, plan, paths[file], client, network)
                times = read_part(paths[file], file)
            if times is None:
                raise StrainError(f"{paths[file]}: damaged as it was written")
            return times

        futures = {pool.submit(part, file): file for file in paths}
        try:
            for future in as_completed(futures):
                available[futures[future]] = future.result()
                count(1, 0)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return available
