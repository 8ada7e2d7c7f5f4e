"""Fetch a background file from GWOSC's open data.

``fetch`` plans which coincident good times to take, downloads the files that cover
them, and writes a background file. Finished downloads are kept in a directory beside
the file, ``OUT.parts``, until the file is complete, so that a fetch can resume.
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
    DownloadPolicy,
    make_part,
    read_part,
    reporting_disk_errors,
)
from chirpwatch.train.data.gwosc.plan import (
    FetchPlan,
    FetchSettings,
    PlannedSegment,
    check_disjoint,
)
from chirpwatch.train.data.gwosc.writer import (
    covered,
    write_segments,
)

TIMEOUT = 30.0
"""Time-out of a connection or a read, s."""


@dataclass(frozen=True)
class Progress:
    """Progress of a fetch.

    Attributes:
        files_done: Files finished.
        files: Files in the plan.
        received: Bytes that this call has downloaded.
    """

    files_done: int
    files: int
    received: int


@dataclass(frozen=True)
class Fetched:
    """Result of a fetch.

    Attributes:
        plan: The plan.
        segments: Segments written: the plan's, less the gaps found in the files.
    """

    plan: FetchPlan
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
    """Write a background file from GWOSC's data; it appears complete or not at all.

    After an interruption, a call with the same settings resumes with the same plan.
    Each job needs memory for one file, about 0.3 GB for 4096 s at 4096 Hz and 0.7 GB at
    16384 Hz, whatever the livetime; the directory of parts needs as much disk as the
    file.

    Args:
        out: The file, HDF5: ``{train,valid,test}/{t0}-{duration}/{ifo}``, float64, and
            ``events/{name,gps,catalog}``.
        settings: Selection of data.
        jobs: Files that are downloaded and resampled in parallel.
        tries: Number of attempts of a request that fails, and of a download that fails
            or is damaged.
        wait: Back-off before the second attempt, s; it doubles after each attempt.
        command: Command line, for the file's attributes.
        progress: Called as files and bytes arrive, from several threads, one at a time.

    Raises:
        StrainError: ``out`` exists; another fetch is writing it, or an interrupted one
            had other settings; no plan can be made; a file cannot be downloaded or is
            damaged; a split has no data left; or the disk is full or not writable.
        KeyboardInterrupt: Finished downloads are kept.
    """
    out = Path(out)
    parts = out.with_name(f"{out.name}.parts")
    with reporting_disk_errors(parts):
        if out.exists():
            raise StrainError(
                f"{out}: exists already; remove it, or choose another name"
            )
    with reporting_disk_errors(parts), _locked(parts):
        plan = _plan(parts, settings, tries, wait)
        _check_space(parts, plan)
        paths = {file: parts / f"{Path(file.name).stem}.part" for file in plan.files}
        available = _download_all(plan, paths, jobs, tries, wait, progress)
        segments = covered(plan, available)
        complete = parts / "whole.hdf5"
        with replacing(complete) as temporary:
            write_segments(temporary, plan, segments, paths, command)
        if out.exists():
            raise StrainError(
                f"{out}: was created by another program during the fetch and is left "
                "as it is; move it, and run the same command again"
            )
        complete.replace(out)
        # Keep the parts until the file is safe on disk.
        sync(out.parent)
        shutil.rmtree(parts)
    return Fetched(plan, segments)


@contextmanager
def _locked(parts: Path) -> Iterator[None]:
    """Create and lock the directory of parts; remove it if no plan was made.

    Raises:
        StrainError: Another fetch holds the lock.
    """
    parts.mkdir(parents=True, exist_ok=True)
    lock = parts / "lock"
    busy = StrainError(
        f"{parts}: another fetch is using this directory; wait until it ends"
    )
    with locked(lock, busy):
        try:
            yield
        finally:
            if parts.exists() and not (parts / "plan.json").exists():
                lock.unlink()
                with suppress(OSError):
                    parts.rmdir()


def _plan(parts: Path, settings: FetchSettings, tries: int, wait: float) -> FetchPlan:
    """The plan of the interrupted fetch in this directory, or a new one."""
    path = parts / "plan.json"
    if not path.exists():
        plan = make_plan(settings, tries, wait)
        with replacing(path) as temporary:
            temporary.write_text(plan.to_json())
        return plan
    # A killed fetch leaves temporary files, whose names start with a dot.
    for leftover in parts.glob(".*"):
        leftover.unlink()
    try:
        plan = FetchPlan.from_json(path.read_text())
    except (ValueError, KeyError, TypeError) as error:
        raise StrainError(
            f"{path}: expected the plan of a fetch: {error}; remove {parts}, and run "
            "the command again"
        ) from None
    check_disjoint(plan.segments)
    previous = asdict(plan.settings)
    changed = [
        f"{name} {value}, found {previous[name]}"
        for name, value in asdict(settings).items()
        if value != previous[name]
    ]
    if changed:
        raise StrainError(
            f"{parts}: holds a fetch with other settings; expected "
            f"{'; '.join(changed)}; use those, or remove the directory"
        )
    return plan


def _check_space(parts: Path, plan: FetchPlan) -> None:
    """Check for disk space: the parts and the file hold the strain once each.

    Raises:
        StrainError: There is too little.
    """
    written = sum(path.stat().st_size for path in parts.iterdir())
    needed = 2 * plan.strain_bytes - written
    free = shutil.disk_usage(parts).free
    if free < needed:
        raise StrainError(
            f"{parts}: expected {needed / 1e6:.0f} MB of free disk space, found "
            f"{free / 1e6:.0f} MB; free some, or take a shorter --livetime"
        )


def _download_all(
    plan: FetchPlan,
    paths: Mapping[SourceFile, Path],
    jobs: int,
    tries: int,
    wait: float,
    progress: Callable[[Progress], None],
) -> dict[SourceFile, SegmentList]:
    """Download the files whose parts are missing or damaged.

    Returns:
        The times for which each file's part has strain.

    Raises:
        StrainError: See ``make_part``.
    """
    stop, lock = threading.Event(), threading.Lock()
    done = received = 0

    def count(files: int, size: int) -> None:
        nonlocal done, received
        with lock:
            done, received = done + files, received + size
            progress(Progress(done, len(paths), received))

    policy = DownloadPolicy(tries, wait, stop, lambda size: count(0, size))
    available = {}
    with (
        ThreadPoolExecutor(jobs) as pool,
        httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client,
    ):

        def part(file: SourceFile) -> SegmentList:
            times = read_part(paths[file], file)
            if times is None:
                make_part(file, plan, paths[file], client, policy)
                times = read_part(paths[file], file)
            if times is None:
                raise StrainError(
                    f"{paths[file]}: was damaged while it was written; check the disk, "
                    "and run the same command again"
                )
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
