"""Strain: gap-free segments of all detectors, and the files that hold them."""

import io
import math
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from chirpwatch.atomic import replacing
from chirpwatch.errors import (
    ChirpwatchError,
    StrainError,
)

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Segment:
    """A gap-free stretch of strain of several detectors.

    Attributes:
        t0_ns: GPS time of the first sample, integer nanoseconds.
        sample_rate: Hz.
        strain: For each detector an array or HDF5 dataset, dimensionless, [size].
        source: Where the strain came from, for messages and reports.
        simulated: Whether the strain is simulated.

    Raises:
        StrainError: There is no strain, or the detectors differ in length.
    """

    t0_ns: int
    sample_rate: int
    strain: Mapping[str, Any] = field(repr=False)
    source: str = "memory"
    simulated: bool = False

    def __post_init__(self) -> None:
        sizes = {ifo: len(data) for ifo, data in self.strain.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise StrainError(
                f"{self.source}: expected the same number of samples, at least one, "
                f"from each detector, found {sizes}"
            )

    @property
    def size(self) -> int:
        """Samples of each detector."""
        return len(next(iter(self.strain.values())))

    @property
    def duration(self) -> float:
        """Length, s."""
        return self.size / self.sample_rate

    @property
    def name(self) -> str:
        """``{t0}-{duration}`` in seconds, the name of the segment in its file."""
        duration_ns = self.size * NANOSECONDS // self.sample_rate
        return f"{_seconds(self.t0_ns)}-{_seconds(duration_ns)}"

    def time_ns(self, sample: int) -> int:
        """GPS time of a sample's start, integer nanoseconds."""
        return self.t0_ns + sample * NANOSECONDS // self.sample_rate

    def read(self, ifo: str, start: int, stop: int) -> NDArray[Any]:
        """Samples ``start`` to ``stop`` of one detector.

        Returns:
            Strain, float32, [stop - start].

        Raises:
            StrainError: The detector is missing, the range leaves the segment, or a
                sample is not finite.
        """
        if ifo not in self.strain:
            raise StrainError(
                f"{self.source}, segment {self.name}: expected detector {ifo}, "
                f"found {', '.join(self.strain)}"
            )
        if not 0 <= start <= stop <= self.size:
            raise StrainError(
                f"{self.source}, segment {self.name}: samples {start} to {stop} of "
                f"{ifo} lie outside its {self.size} samples"
            )
        where = f"{self.source}, segment {self.name}, {ifo}"
        # What overflows is reported below.
        with damaged(where), np.errstate(over="ignore"):
            data = np.asarray(self.strain[ifo][start:stop], dtype=np.float32)
        if not np.isfinite(data).all():
            first = start + int(np.argmin(np.isfinite(data)))
            raise StrainError(
                f"{self.source}, segment {self.name}: expected finite strain, found "
                f"{self.strain[ifo][first]} in {ifo} at GPS "
                f"{self.time_ns(first) / NANOSECONDS:.6f}; cut the segment there"
            )
        return data


@contextmanager
def damaged(
    where: str | Path, refusal: type[ChirpwatchError] = StrainError
) -> Iterator[None]:
    """What HDF5 and numpy say of a damaged file, as a refusal that says which.

    Args:
        where: The file, or its part, as a message names it.
        refusal: The exception.

    Raises:
        ChirpwatchError: ``refusal``.
    """
    try:
        yield
    # HDF5's own errors are of any of these kinds, and so is what follows from a shape,
    # type or attribute that nobody wrote.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise refusal(
            f"{where}: damaged, or not laid out as expected: {error}"
        ) from error


class _SilentFile(io.FileIO):
    """A file that takes everything in silence after an error of the system.

    HDF5 cannot close a file that it cannot write: on a full disk it would crash. The
    error is kept instead, and asked for.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, or none after an error."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view) and self.error is None:
                written += super().write(view[written:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size; nothing happens after an error."""
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read; what was lost after an error reads as zeros."""
        view = memoryview(buffer).cast("B")
        count = super().readinto(view) or 0
        if self.error is not None:
            view[count:] = bytes(len(view) - count)
            return len(view)
        return count


class AmendedFile(h5py.File):  # type: ignore[misc]  # h5py has no types
    """An HDF5 file that ``writing`` or ``amending`` opened."""

    def __init__(self, handle: _SilentFile, mode: str) -> None:
        super().__init__(handle, mode)
        self._handle = handle

    @property
    def failed(self) -> bool:
        """Whether something could not be written."""
        return self._handle.error is not None

    def check(self) -> None:
        """Stop where the disk is full, after a large piece rather than at the end.

        Raises:
            OSError: Something could not be written.
        """
        self.flush()
        if self._handle.error is not None:
            raise self._handle.error


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[AmendedFile]:
    """Open an HDF5 file that can be closed when the disk is full.

    Args:
        path: The file, which has to be there.
        mode: ``w`` to begin anew, ``a`` to add to an HDF5 file.

    Raises:
        OSError: Something could not be written.
    """
    with _SilentFile(path, "r+") as handle:
        with AmendedFile(handle, mode) as file:
            yield file
        if handle.error is not None:
            raise handle.error


@contextmanager
def amending(
    path: str | Path, refusal: type[ChirpwatchError] = StrainError
) -> Iterator[AmendedFile]:
    """Open a copy of an HDF5 file, or a new one, that takes its place on success.

    A file that is there already is copied whole, by the system and not through memory:
    what belongs together is best added together.

    Args:
        path: The file.
        refusal: The exception for a file that cannot be read or written.

    Raises:
        ChirpwatchError: ``refusal``; ``path`` is as it was, or as another command that
            changed it meanwhile left it.
    """
    path = Path(path)
    foreign = None
    try:
        before = _identity(path)
        with replacing(path) as temporary:
            if path.exists():
                shutil.copyfile(path, temporary)
            # An empty file is no HDF5 file: "a" would refuse it.
            mode = "a" if temporary.stat().st_size else "w"
            if mode == "a":
                try:
                    h5py.File(temporary, "r").close()
                except OSError as error:
                    raise refusal(f"{path}: expected an HDF5 file: {error}") from None
            with writing(temporary, mode) as file:
                try:
                    yield file
                except OSError as error:
                    # Of something that the caller reads, where all was written here.
                    foreign = None if file.failed else error
                    raise
            if _identity(path) != before:
                raise refusal(
                    f"{path}: another command changed it meanwhile; it stays as that "
                    "left it: run this command again"
                )
    except OSError as error:
        if error is foreign:
            raise
        raise refusal(
            f"{path}: could not be written, and is as it was before: {error}; look for "
            "room on the disk and for the right to write there"
        ) from error


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from another of its name, and from itself with other content."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@dataclass(frozen=True)
class NewSegment:
    """A segment that is written piece by piece.

    Attributes:
        t0: GPS time of the first sample, s.
        duration: A whole number of samples, s.
        pieces: For each detector its strain in pieces, one after the other, each [n].
        attributes: Attributes of the segment, such as ``simulated``.
        columns: Further datasets by their name in the segment's group, such as
            ``glitches/H1``, each [n]; those who read strain pass over them.
    """

    t0: int
    duration: float
    pieces: Mapping[str, Iterable[NDArray[Any]]] = field(repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


def write_segments(
    path: str | Path, split: str, segments: Iterable[NewSegment], sample_rate: int
) -> None:
    """Add segments to a background file; it appears whole or not at all.

    Only one piece is in memory at a time. Layout: ``{split}/{t0}-{duration}/{ifo}``,
    float64, with the attributes ``x0`` (GPS s) and ``dx`` (s) on each dataset.

    Args:
        path: The file; made where it is not there.
        split: ``train``, ``valid`` or ``test``.
        segments: What is written.
        sample_rate: Hz.

    Raises:
        StrainError: The pieces of a segment are not as long as it, it is in the file
            already, or the disk is full.
    """
    with amending(path) as file:
        for segment in segments:
            size = round(segment.duration * sample_rate)
            length = _seconds(size * NANOSECONDS // sample_rate)
            name = f"{split}/{segment.t0}-{length}"
            if name in file:
                raise StrainError(f"{path}: segment {name} is there already")
            group = file.create_group(name)
            group.attrs.update(segment.attributes)
            for key, column in segment.columns.items():
                group[key] = column
            for ifo, pieces in segment.pieces.items():
                dataset = group.create_dataset(ifo, (size,), dtype="f8")
                dataset.attrs["x0"] = float(segment.t0)
                dataset.attrs["dx"] = 1 / sample_rate
                written = 0
                for piece in pieces:
                    if written + len(piece) <= size:
                        dataset[written : written + len(piece)] = piece
                        file.check()
                    written += len(piece)
                if written != size:
                    raise StrainError(
                        f"{path}, {group.name}/{ifo}: expected {size} samples, found "
                        f"{written}"
                    )


def write_background(
    path: str | Path,
    split: str,
    t0: int,
    strain: Mapping[str, NDArray[Any]],
    sample_rate: int,
    attributes: Mapping[str, Any],
) -> None:
    """Add one segment that is in memory, as ``write_segments`` does.

    Args:
        path: The file; made where it is not there.
        split: ``train``, ``valid`` or ``test``.
        t0: GPS time of the first sample, s.
        strain: For each detector the strain, [size].
        sample_rate: Hz.
        attributes: Attributes of the segment, such as ``simulated``.

    Raises:
        StrainError: The lengths differ, the segment is in the file already, or the
            disk is full.
    """
    segment = Segment(t0 * NANOSECONDS, sample_rate, strain, source=str(path))
    pieces = {ifo: [data] for ifo, data in strain.items()}
    new = NewSegment(t0, segment.duration, pieces, attributes)
    write_segments(path, split, [new], sample_rate)


def read_background(
    path: str | Path, split: str, ifos: Sequence[str], sample_rate: int
) -> list[Segment]:
    """The segments of one split of a background file, in order of time.

    The strain is read when it is used; the file stays open as long as its segments.

    Raises:
        StrainError: No such file or split, no HDF5, a detector is missing, or a
            sample rate is not ``sample_rate``.
    """
    file = _open(path)
    with damaged(path):
        return _segments(file, path, split, ifos, sample_rate)


def _segments(
    file: h5py.File,
    path: str | Path,
    split: str,
    ifos: Sequence[str],
    sample_rate: int,
) -> list[Segment]:
    if split not in file or not len(file[split]):
        raise StrainError(
            f"{path}: expected segments under '{split}/', found {sorted(file)}"
        )
    segments = []
    for name, group in file[split].items():
        where = f"{path}, {split}/{name}"
        missing = [ifo for ifo in ifos if ifo not in group]
        if missing:
            found = [key for key in group if isinstance(group[key], h5py.Dataset)]
            raise StrainError(
                f"{where}: expected detectors {', '.join(ifos)}, found "
                f"{', '.join(found) or 'none'}"
            )
        starts = set()
        for ifo in ifos:
            for attribute in ("x0", "dx"):
                if attribute not in group[ifo].attrs:
                    raise StrainError(f"{where}/{ifo}: no attribute {attribute}")
            _check_rate(f"{where}/{ifo}", 1 / group[ifo].attrs["dx"], sample_rate)
            starts.add(float(group[ifo].attrs["x0"]))
        if len(starts) != 1:
            raise StrainError(f"{where}: detectors start at different times: {starts}")
        segments.append(
            Segment(
                t0_ns=round(starts.pop() * NANOSECONDS),
                sample_rate=sample_rate,
                strain={ifo: group[ifo] for ifo in ifos},
                source=str(path),
                simulated=bool(group.attrs.get("simulated", False)),
            )
        )
    return sorted(segments, key=lambda segment: segment.t0_ns)


def read_gwosc_file(path: str | Path) -> tuple[str, float, float, NDArray[Any]]:
    """What one of the HDF5 files that GWOSC publishes holds, as it is.

    Returns:
        The detector, the GPS time of the first sample, s, the sample rate, Hz, and the
        strain, float64, [size], NaN where there are no data.

    Raises:
        StrainError: The file is missing, damaged or not GWOSC's.

    Source: gwosc.org, "What's in a LIGO data file" (``strain/Strain``, ``meta/*``).
    """
    with _open(path) as file, damaged(path):
        try:
            dataset = file["strain/Strain"]
            _check_chunks(dataset)
            return (
                file["meta/Detector"][()].decode(),
                float(dataset.attrs["Xstart"]),
                1 / float(dataset.attrs["Xspacing"]),
                dataset[()],
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise StrainError(
                f"{path}: expected GWOSC's layout (strain/Strain, meta/Detector): "
                f"{error}"
            ) from None


def _check_chunks(dataset: h5py.Dataset) -> None:
    """Refuse strain of which the file's index lost a chunk, or a chunk is damaged.

    A lost one would read as zeros, and HDF5 may look for the end of a damaged one for
    ever.

    Raises:
        ValueError: The dataset has fewer chunks than its size asks for, or one that
            does not decompress to its size.
    """
    if dataset.chunks is None:
        return
    expected = math.prod(
        -(-size // chunk)
        for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    )
    found = dataset.id.get_num_chunks()
    if found != expected:
        raise ValueError(f"expected {expected} chunks of strain, found {found}")
    if dataset.compression != "gzip":
        return
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    for number in range(found):
        offset = dataset.id.get_chunk_info(number).chunk_offset
        skipped, packed = dataset.id.read_direct_chunk(offset)
        if skipped:
            continue
        stream = zlib.decompressobj()
        try:
            unpacked = len(stream.decompress(packed, size + 5))
        except zlib.error as error:
            raise ValueError(f"chunk {number} of the strain: {error}") from None
        # With fletcher32, its four bytes come on top.
        if not stream.eof or not size <= unpacked <= size + 4:
            raise ValueError(
                f"chunk {number} of the strain: expected {size} bytes, found {unpacked}"
            )


def read_gwosc(
    paths: Sequence[str | Path], ifos: Sequence[str], sample_rate: int
) -> list[Segment]:
    """Segments from the HDF5 files that GWOSC publishes, one for each detector.

    The strain is resampled with a zero-phase polyphase filter. GWOSC marks missing
    data with NaN; the stretches where every detector has data become the segments.

    Args:
        paths: One file for each detector, in any order.
        ifos: The detectors wanted.
        sample_rate: The rate wanted, Hz.

    Raises:
        StrainError: A file is missing or not GWOSC's, a detector is missing or there
            twice, the files do not overlap, or a sample is infinite.
    """
    series: dict[str, tuple[float, float, NDArray[Any]]] = {}
    for path in paths:
        ifo, start, rate, data = read_gwosc_file(path)
        if ifo in series:
            raise StrainError(f"{path}: a second file of detector {ifo}")
        series[ifo] = start, rate, data
    if not set(ifos) <= set(series):
        raise StrainError(
            f"expected files of detectors {', '.join(ifos)}, found "
            f"{', '.join(sorted(series)) or 'none'}"
        )
    start = max(series[ifo][0] for ifo in ifos)
    stop = min(series[ifo][0] + len(series[ifo][2]) / series[ifo][1] for ifo in ifos)
    if stop <= start:
        raise StrainError(f"the files {', '.join(map(str, paths))} do not overlap")
    rates = {series[ifo][1] for ifo in ifos}
    if len(rates) != 1:
        raise StrainError(f"expected one sample rate, found {sorted(rates)} Hz")
    rate = rates.pop()
    cut = {}
    for ifo in ifos:
        begin = round((start - series[ifo][0]) * rate)
        cut[ifo] = series[ifo][2][begin : begin + round((stop - start) * rate)]
        if np.isinf(cut[ifo]).any():
            first = int(np.argmax(np.isinf(cut[ifo])))
            raise StrainError(
                f"detector {ifo}: expected finite strain, found {cut[ifo][first]} at "
                f"GPS {start + first / rate:.6f}"
            )
    present = ~np.any([np.isnan(data) for data in cut.values()], axis=0)
    labels, _ = ndimage.label(present)
    segments = []
    for (run,) in ndimage.find_objects(labels):
        segments.append(
            Segment(
                t0_ns=round(start * NANOSECONDS)
                + round(run.start * NANOSECONDS / rate),
                sample_rate=sample_rate,
                strain={
                    ifo: resample(data[run], rate, sample_rate, ifo)
                    for ifo, data in cut.items()
                },
                source=", ".join(Path(path).name for path in paths),
            )
        )
    return segments


def resample(data: NDArray[Any], rate: float, wanted: int, ifo: str) -> NDArray[Any]:
    """Strain at a lower rate, through a zero-phase polyphase filter.

    The filter reaches 10 samples of the wanted rate to either side; that many at each
    end follow from a straight line through the ends, in place of data.

    Args:
        data: Strain, [size].
        rate: Its rate, Hz.
        wanted: The rate wanted, Hz.
        ifo: The detector, for messages.

    Raises:
        StrainError: The rate is lower than that wanted, or no whole number.
    """
    if rate == wanted:
        return data
    if rate % 1 or rate < wanted:
        raise StrainError(
            f"detector {ifo}: expected a whole sample rate of at least {wanted} Hz, "
            f"found {rate:g} Hz"
        )
    common = math.gcd(round(rate), wanted)
    resampled: NDArray[Any] = signal.resample_poly(
        data, wanted // common, round(rate) // common, padtype="line"
    )
    return resampled


def _seconds(time_ns: int) -> str:
    """Seconds, with as many decimals as it takes."""
    whole, rest = divmod(time_ns, NANOSECONDS)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _open(path: str | Path) -> h5py.File:
    if not Path(path).exists():
        raise StrainError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StrainError(f"{path}: expected an HDF5 file: {error}") from None


def _check_rate(where: str, found: float, expected: int) -> None:
    if not math.isclose(found, expected, rel_tol=1e-9):
        raise StrainError(
            f"{where}: expected a sample rate of {expected} Hz, found {found:g} Hz; "
            "resample it first"
        )
