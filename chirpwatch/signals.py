"""Signal files: mergers to train on, and mergers projected to be injected.

``signals.hdf5`` holds, for training, ``{train,valid}/polarizations/{plus,cross}`` and
``{train,valid}/parameters/*``; for tests, one set for each segment and timeslide,
``test/{t0}-{duration}/{shifts}/{ifo}`` and ``…/parameters/*``.

The time of a projected signal, ``gps_time``, is the arrival of its merger (the peak of
the (2, 2) mode's amplitude) at *the detector that it reaches first*. It is not the
time at the geocentre, which may lie up to 21 ms away from any detector's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from chirpwatch.errors import SignalError
from chirpwatch.geometry import Geometry
from chirpwatch.hdf5 import AmendedFile, amending, damaged

NANOSECONDS = 1_000_000_000
STORAGE = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
CHUNK_ROWS = 4
POLARIZATIONS = ("polarizations/plus", "polarizations/cross")


class StoredStrain:
    """Strain of mergers that stays in its file until it is asked for.

    It takes the place of an array, [n, ifos, size], for those who ask for one merger
    at a time; the file stays open as long as it.

    Args:
        datasets: Strain of each detector, [rows, size].
        rows: Row of each merger, [n].

    Raises:
        ValueError: The detectors differ in shape.
    """

    def __init__(
        self, datasets: Sequence[h5py.Dataset], rows: NDArray[np.int64]
    ) -> None:
        self._datasets, self._rows = tuple(datasets), rows
        shapes = {dataset.shape for dataset in datasets}
        if len(shapes) != 1:
            raise ValueError(f"found {', '.join(map(str, shapes))}")
        (length, *rest) = shapes.pop()
        there = int((rows < length).sum())
        self.shape = (there, len(self._datasets), *rest)
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[np.float32]:
        """Read the strain of one merger in some detectors, float32, [ifos, size]."""
        merger, ifos, samples = key
        row = self._rows[merger]
        with damaged(self._datasets[0].file.filename, SignalError):
            return np.stack(
                [
                    dataset[row, samples].astype(np.float32, copy=False)
                    for dataset in self._datasets[ifos]
                ]
            )


@dataclass(frozen=True)
class ProjectedSignals:
    """Mergers as the detectors see them, ready to be added to strain.

    The times are those of the analysis: a set for a timeslide is added after the
    detectors were shifted.

    Attributes:
        ifos: Detectors, in the order of the strain's axis.
        sample_rate: Hz.
        strain: Dimensionless, float32, [n, ifos, size]: an array, or a
            ``StoredStrain``.
        merger_size: Sample at which the merger reaches the first detector, the same in
            each signal: sample 0 belongs to ``gps_time - merger_size / sample_rate``.
        gps_time_ns: Arrival of the merger at the first detector, integer nanoseconds,
            int64, [n], increasing.
        parameters: Further columns [n], among them ``snr`` (network), ``mass_1`` and
            ``mass_2`` (solar masses, detector frame), and ``delay_{ifo}`` (s): how much
            later than ``gps_time`` the merger reaches each detector.
        num_rejected: Draws that were thrown away for being too faint.
        attributes: Where the signals came from.

    Raises:
        SignalError: The shapes do not fit each other, the times do not increase, or a
            sample is not finite.
    """

    ifos: tuple[str, ...]
    sample_rate: int
    strain: Any = field(repr=False)
    merger_size: int
    gps_time_ns: NDArray[Any]
    parameters: Mapping[str, NDArray[Any]] = field(repr=False)
    num_rejected: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.gps_time_ns)
        if self.strain.ndim != 3 or self.strain.shape[:2] != (n, len(self.ifos)):
            raise SignalError(
                f"signals: expected strain of {n} signals in {len(self.ifos)} "
                f"detectors, found the shape {self.strain.shape}"
            )
        if not 0 <= self.merger_size < self.strain.shape[2]:
            raise SignalError(
                f"signals: expected the merger within the {self.strain.shape[2]} "
                f"samples of each signal, found it at sample {self.merger_size}"
            )
        for name, column in self.parameters.items():
            if len(column) != n:
                raise SignalError(
                    f"signals: expected {n} values of {name}, found {len(column)}"
                )
            if not np.isfinite(column).all():
                raise SignalError(
                    f"signals: expected finite {name}, found NaN or infinity in signal "
                    f"{int(np.argmin(np.isfinite(column)))}"
                )
        if (np.diff(self.gps_time_ns) < 0).any():
            raise SignalError("signals: expected them in order of time")
        # One by one: they may lie in a file that is larger than the memory.
        for i in range(n):
            if not np.isfinite(self.strain[i, :, :]).all():
                raise SignalError(
                    "signals: expected finite strain, found NaN or infinity in signal "
                    f"{i}"
                )

    def __len__(self) -> int:
        """Number of signals."""
        return len(self.gps_time_ns)

    @property
    def size(self) -> int:
        """Samples of each signal."""
        return int(self.strain.shape[2])

    @property
    def gps_time(self) -> NDArray[Any]:
        """Arrival of the mergers at their first detector, GPS s, float64, [n]."""
        return self.gps_time_ns / NANOSECONDS


def shift_key(shifts: Sequence[float]) -> str:
    """Name of a timeslide in a signal file: seconds for each detector, as ``0,4``."""
    # Adding zero turns -0.0, which would print a sign, into 0.0.
    return ",".join(f"{shift + 0.0:.10g}" for shift in shifts)


class SignalWriter:
    """Writes the mergers of one set batch by batch, so that any number fits in memory.

    Args:
        group: The set's group in a file.
        names: Datasets of strain in it.
        sample_rate: Hz.
        merger_size: Sample of the merger in each signal.
    """

    def __init__(
        self,
        group: h5py.Group,
        names: Sequence[str],
        sample_rate: int,
        merger_size: int,
    ) -> None:
        self.group, self.names, self.num_rejected = group, tuple(names), 0
        group.attrs["sample_rate"] = sample_rate
        group.attrs["merger_size"] = merger_size

    def append(
        self,
        strain: Mapping[str, NDArray[Any]],
        parameters: Mapping[str, NDArray[Any]],
    ) -> None:
        """Add mergers.

        Args:
            strain: For each name, [n, size].
            parameters: Columns [n], the same ones each time.

        Raises:
            SignalError: A sample or parameter is not finite.
        """
        for name in self.names:
            _append(self.group, name, strain[name].astype(np.float32))
        for name, column in parameters.items():
            _append(self.group, f"parameters/{name}", column)

    def reject(
        self, parameters: Mapping[str, NDArray[Any]], count: int, keep: bool
    ) -> None:
        """Count mergers that were thrown away for being too faint.

        Args:
            parameters: Columns [count].
            count: How many.
            keep: Whether their parameters are written, to ``rejected/parameters``.
        """
        self.num_rejected += count
        for name, column in parameters.items() if keep else ():
            _append(self.group, f"rejected/parameters/{name}", column)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write what is known at the end."""
        self.group.attrs.update(attributes)
        self.group.attrs["num_rejected"] = self.num_rejected


def _append(group: h5py.Group, name: str, rows: NDArray[Any]) -> None:
    if not np.isfinite(rows).all():
        raise SignalError(
            f"{group.name}/{name}: expected finite values, found NaN or infinity"
        )
    if name not in group:
        many = rows.ndim > 1
        group.create_dataset(
            name,
            (0, *rows.shape[1:]),
            rows.dtype,
            maxshape=(None, *rows.shape[1:]),
            chunks=(CHUNK_ROWS, *rows.shape[1:]) if many else (4096,),
            **(STORAGE if many else {}),
        )
    dataset = group[name]
    dataset.resize(len(dataset) + len(rows), 0)
    dataset[len(dataset) - len(rows) :] = rows


@contextmanager
def amending_signals(path: str | Path) -> Iterator[AmendedFile]:
    """Open a signal file to add sets; it changes as a whole or not at all.

    A file that is there already is copied, see ``amending``.

    Raises:
        SignalError: The file cannot be read or written; it is as it was.
    """
    with amending(path, SignalError) as file:
        yield file


def new_set(file: h5py.File, path: str | Path, name: str) -> h5py.Group:
    """Add the group of a set: ``train``, ``valid`` or ``test/{segment}/{shifts}``.

    Raises:
        SignalError: The set is in the file already.
    """
    if name in file:
        raise SignalError(f"{path}: {name} is there already")
    return file.create_group(name)


def write_times(group: h5py.Group, gps_time_ns: NDArray[Any]) -> None:
    """Write the times of a test set's mergers, GPS ns, [n], in the order written."""
    group["parameters/gps_time"] = gps_time_ns / NANOSECONDS
    group["parameters/gps_time_ns"] = gps_time_ns.astype(np.int64)


def write_test_signals(
    path: str | Path, segment: str, shifts: Sequence[float], signals: ProjectedSignals
) -> None:
    """Add one set of projected signals to a file; it appears whole or not at all.

    Args:
        path: The file; made where it is not there.
        segment: Name of the strain segment, ``{t0}-{duration}`` in s.
        shifts: Shift of each detector, s.
        signals: What is written.

    Raises:
        SignalError: The set is in the file already, or the disk is full.
    """
    with amending_signals(path) as file:
        group = new_set(file, path, f"test/{segment}/{shift_key(shifts)}")
        writer = SignalWriter(
            group, signals.ifos, signals.sample_rate, signals.merger_size
        )
        strain = {ifo: signals.strain[:, i] for i, ifo in enumerate(signals.ifos)}
        writer.append(strain, signals.parameters)
        writer.num_rejected = signals.num_rejected
        write_times(group, signals.gps_time_ns)
        writer.finish(signals.attributes)


def read_test_signals(
    path: str | Path,
    segment: str,
    shifts: Sequence[float],
    ifos: Sequence[str] = Geometry().ifos,
    sample_rate: int = 2048,
    span: tuple[float, float] | None = None,
    stored: bool = False,
) -> ProjectedSignals:
    """Read the projected signals of one segment and timeslide, in order of time.

    Args:
        path: Signal file.
        segment: Name of the strain segment, ``{t0}-{duration}`` in s.
        shifts: Shift of each detector, s.
        ifos: Detectors wanted, in the order wanted.
        sample_rate: The rate expected, Hz.
        span: Read only the signals whose ``gps_time`` is in this range, from the first
            up to but without the second, GPS s; memory then grows with their number.
        stored: Look through the strain, but leave it in the file, which stays open, and
            read each signal as it is asked for: see ``StoredStrain``.

    Raises:
        SignalError: The file, the set, a detector, a column or an attribute is
            missing; or the sample rate or a shape is another than expected.
    """
    name = f"test/{segment}/{shift_key(shifts)}"
    where = f"{path}, {name}"
    with ExitStack() as stack:
        stack.enter_context(damaged(where, SignalError))
        file = stack.enter_context(_open(path))
        if name not in file:
            tests = file.get("test", {})
            sets = [f"{key}/{shift}" for key in tests for shift in tests[key]]
            raise SignalError(
                f"{path}: expected signals {segment}/{shift_key(shifts)} under "
                f"'test/', found {', '.join(sets) or 'none'}; make them with "
                "'chirpwatch simulate signals'"
            )
        group = file[name]
        attributes = dict(group.attrs)
        try:
            rate = int(attributes.pop("sample_rate"))
            merger_size = int(attributes.pop("merger_size"))
            num_rejected = int(attributes.pop("num_rejected"))
            # Files by others hold the time in floating-point seconds alone.
            gps_time_ns = np.round(group["parameters/gps_time"][()] * NANOSECONDS)
            gps_time_ns = gps_time_ns.astype(np.int64)
            if "gps_time_ns" in group["parameters"]:
                gps_time_ns = group["parameters/gps_time_ns"][()]
            wanted = _between(gps_time_ns, span)
            columns = {
                key: _rows(data, wanted)
                for key, data in group["parameters"].items()
                if key not in {"gps_time", "gps_time_ns"}
            }
            _ = columns["snr"]
            rows = np.arange(len(gps_time_ns))[wanted]
            gps_time_ns = gps_time_ns[wanted]
            order = np.argsort(gps_time_ns, kind="stable")
            # Files by others have any order: rows of other times may lie between.
            order = order[_inside(gps_time_ns, span)[order]]
            strain: Any
            if stored:
                strain = StoredStrain([group[ifo] for ifo in ifos], rows[order])
                stack.pop_all()
            else:
                strain = np.stack(
                    [
                        _rows(group[ifo], wanted).astype(np.float32, copy=False)
                        for ifo in ifos
                    ],
                    axis=1,
                )
        except KeyError as error:
            raise SignalError(
                f"{where}: expected detectors {', '.join(ifos)}, parameters/gps_time "
                "and snr, and the attributes sample_rate, merger_size and "
                f"num_rejected; missing: {error}"
            ) from None
        except ValueError as error:
            raise SignalError(f"{where}: detectors differ in shape: {error}") from None
    if rate != sample_rate:
        raise SignalError(
            f"{where}: expected a sample rate of {sample_rate} Hz, found {rate} Hz"
        )
    with damaged(where, SignalError):
        # Large: a second copy only where the order asks for one.
        if not stored and not np.array_equal(order, np.arange(len(gps_time_ns))):
            strain = strain[order]
        try:
            return ProjectedSignals(
                ifos=tuple(ifos),
                sample_rate=rate,
                strain=strain,
                merger_size=merger_size,
                gps_time_ns=gps_time_ns[order],
                parameters={key: column[order] for key, column in columns.items()},
                num_rejected=num_rejected,
                attributes=attributes,
            )
        except SignalError as error:
            raise SignalError(f"{where}: {error}") from None


def _inside(
    gps_time_ns: NDArray[Any], span: tuple[float, float] | None
) -> NDArray[Any]:
    if span is None:
        return np.ones(len(gps_time_ns), bool)
    start, stop = (round(time * NANOSECONDS) for time in span)
    return (gps_time_ns >= start) & (gps_time_ns < stop)


def _between(gps_time_ns: NDArray[Any], span: tuple[float, float] | None) -> slice:
    """The rows from the first to the last that lie in a span."""
    inside = np.flatnonzero(_inside(gps_time_ns, span))
    return slice(inside[0], inside[-1] + 1) if len(inside) else slice(0)


def _rows(dataset: h5py.Dataset, wanted: slice) -> NDArray[Any]:
    rows: NDArray[Any] = dataset[wanted]
    return rows


def _open(path: str | Path) -> h5py.File:
    if not Path(path).exists():
        raise SignalError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SignalError(f"{path}: expected an HDF5 file: {error}") from None
