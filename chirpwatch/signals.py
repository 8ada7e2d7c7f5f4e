"""Signal files: simulated mergers, as polarizations to train on or as injections.

A signal file, ``signals.hdf5``, holds polarizations for training in
``{train,valid}/polarizations/{plus,cross}`` and ``{train,valid}/parameters/*``. For
injections it holds strain projected onto the detectors, one set for each segment and
timeslide, in ``test/{t0}-{duration}/{shifts}/{ifo}`` and ``…/parameters/*``.

A projected signal's time, ``gps_time``, is the arrival time of its merger (the peak of
the (2, 2) mode's amplitude) at *the detector that it reaches first*. It is not the
geocentric time, which differs from a detector's by up to 21 ms.
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
from chirpwatch.hdf5 import WritableFile, amending, open_hdf5, report_damage
from chirpwatch.strain import NANOSECONDS

STORAGE = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
"""h5py's options for datasets of strain."""

CHUNK_ROWS = 4
"""Signals in one HDF5 chunk of strain."""

POLARIZATIONS = ("polarizations/plus", "polarizations/cross")
"""Datasets of strain in a set for training."""


class StoredStrain:
    """Array-like strain of signals, [n, ifos, size], that is read from disk on access.

    Each access reads one signal. The file stays open while the object exists.

    Args:
        datasets: Each detector's strain, [rows, size].
        rows: Row of each signal in the datasets, [n].

    Raises:
        ValueError: The detectors' datasets differ in shape.
    """

    def __init__(
        self, datasets: Sequence[h5py.Dataset], rows: NDArray[np.int64]
    ) -> None:
        self._datasets, self._rows = tuple(datasets), rows
        shapes = {dataset.shape for dataset in datasets}
        if len(shapes) != 1:
            raise ValueError(f"found {', '.join(map(str, shapes))}")
        (length, *rest) = shapes.pop()
        # With fewer rows than signals, the shape differs from what is expected.
        present = int((rows < length).sum())
        self.shape = (present, len(self._datasets), *rest)
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[np.float32]:
        """Read one signal's samples in some detectors, float32, [ifos, size]."""
        signal, ifos, samples = key
        row = self._rows[signal]
        with report_damage(self._datasets[0].file.filename, SignalError):
            return np.stack(
                [
                    dataset[row, samples].astype(np.float32, copy=False)
                    for dataset in self._datasets[ifos]
                ]
            )


@dataclass(frozen=True)
class ProjectedSignals:
    """Signals projected onto the detectors, ready to be injected into strain.

    In a set for a timeslide, times are those after the shift, so the signals are added
    after the detectors have been shifted.

    Attributes:
        ifos: Detectors, in the order of the strain's axis.
        sample_rate: Sample rate of the strain, Hz.
        strain: Array or ``StoredStrain``, dimensionless, float32, [n, ifos, size].
        merger_size: Sample index at which the merger reaches its first detector, the
            same in each signal: the GPS time of sample 0 is ``gps_time - merger_size /
            sample_rate``.
        gps_time_ns: Arrival time of each merger at its first detector, GPS ns, int64,
            [n], ascending.
        parameters: Columns [n], among them ``snr`` (network SNR), ``mass_1`` and
            ``mass_2`` (solar masses, detector frame), and ``delay_{ifo}``, the arrival
            time at each detector relative to ``gps_time``, s.
        num_rejected: Number of draws rejected because their SNR was too low.
        attributes: Provenance of the signals.

    Raises:
        SignalError: Shapes do not agree, times do not ascend, or a value is not finite.
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
            first = int(np.argmax(np.diff(self.gps_time_ns) < 0)) + 1
            raise SignalError(
                "signals: expected them in order of time, found signal "
                f"{first} before the one that precedes it"
            )
        # One by one, as a StoredStrain may be larger than the memory.
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
        """Number of samples in each signal."""
        return int(self.strain.shape[2])

    @property
    def gps_time(self) -> NDArray[Any]:
        """Arrival time of each merger at its first detector, GPS s, float64, [n]."""
        return self.gps_time_ns / NANOSECONDS


def shift_key(shifts: Sequence[float]) -> str:
    """Name of a timeslide in a signal file: each detector's shift in s, as ``0,4``."""
    # Adding 0.0 turns -0.0 into 0.0, which prints without a sign.
    return ",".join(f"{shift + 0.0:.10g}" for shift in shifts)


class SignalWriter:
    """Writer for one set of signals, in batches, so that a set may exceed the memory.

    Args:
        group: The set's group in the file.
        names: Names of its datasets of strain.
        sample_rate: Sample rate of the strain, Hz.
        merger_size: Sample index of the merger in each signal.
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
        """Add a batch of signals.

        Args:
            strain: Strain by dataset name, dimensionless, each [n, size].
            parameters: Columns [n], the same ones in each batch.

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
        """Count draws that were rejected because their SNR was too low.

        Args:
            parameters: Columns [count].
            count: Number of rejected draws.
            keep: Whether to write their parameters, to ``rejected/parameters``.
        """
        self.num_rejected += count
        for name, column in parameters.items() if keep else ():
            _append(self.group, f"rejected/parameters/{name}", column)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the set's attributes and the number of rejected draws."""
        self.group.attrs.update(attributes)
        self.group.attrs["num_rejected"] = self.num_rejected


def _append(group: h5py.Group, name: str, rows: NDArray[Any]) -> None:
    if not np.isfinite(rows).all():
        raise SignalError(
            f"{group.name}/{name}: expected finite values, found NaN or infinity"
        )
    if name not in group:
        is_strain = rows.ndim > 1
        group.create_dataset(
            name,
            (0, *rows.shape[1:]),
            rows.dtype,
            maxshape=(None, *rows.shape[1:]),
            chunks=(CHUNK_ROWS, *rows.shape[1:]) if is_strain else (4096,),
            **(STORAGE if is_strain else {}),
        )
    dataset = group[name]
    dataset.resize(len(dataset) + len(rows), 0)
    dataset[len(dataset) - len(rows) :] = rows


@contextmanager
def amending_signals(path: str | Path) -> Iterator[WritableFile]:
    """Open a signal file to add sets to it, all or none of them; see ``amending``.

    Raises:
        SignalError: The file cannot be read or written; it is then unchanged.
    """
    with amending(path, SignalError) as file:
        yield file


def new_set(file: h5py.File, path: str | Path, name: str) -> h5py.Group:
    """Create a set's group: ``train``, ``valid`` or ``test/{segment}/{shifts}``.

    Raises:
        SignalError: The file already contains the set.
    """
    if name in file:
        raise SignalError(f"{path}: set {name} already exists; write to another file")
    return file.create_group(name)


def write_times(group: h5py.Group, gps_time_ns: NDArray[Any]) -> None:
    """Write the times of a test set's signals, GPS ns, [n], in the strain's order."""
    group["parameters/gps_time"] = gps_time_ns / NANOSECONDS
    group["parameters/gps_time_ns"] = gps_time_ns.astype(np.int64)


def write_test_signals(
    path: str | Path, segment: str, shifts: Sequence[float], signals: ProjectedSignals
) -> None:
    """Add one set of projected signals to a signal file, atomically.

    Args:
        path: The file; it is created if it does not exist.
        segment: Name of the strain segment, ``{t0}-{duration}`` in s.
        shifts: Shift of each detector, s.
        signals: The signals.

    Raises:
        SignalError: The file already contains the set, or cannot be written.
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
    """Read the projected signals for one segment and timeslide, in order of time.

    Args:
        path: Signal file.
        segment: Name of the strain segment, ``{t0}-{duration}`` in s.
        shifts: Shift of each detector, s.
        ifos: Detectors to read, in the order of the result's axis.
        sample_rate: Sample rate that the file must have, Hz.
        span: Start (included) and end (excluded) of the ``gps_time`` to read, GPS s;
            None reads all signals.
        stored: Whether to leave the strain in the file and read each signal on access,
            see ``StoredStrain``. The strain is still checked once. The file stays open.

    Raises:
        SignalError: The file, set, a detector, a column or an attribute is missing; the
            file is damaged; or the sample rate or a shape differs from what is
            expected.
    """
    name = f"test/{segment}/{shift_key(shifts)}"
    where = f"{path}, {name}"
    strain: Any
    with ExitStack() as stack:
        stack.enter_context(report_damage(where, SignalError))
        file = stack.enter_context(open_hdf5(path, SignalError))
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
            gps_time_ns, rows, order = _rows_in_span(group["parameters"], span)
            columns = {
                key: data[rows][order]
                for key, data in group["parameters"].items()
                if key not in {"gps_time", "gps_time_ns"}
            }
            _ = columns["snr"]
            if stored:
                strain = StoredStrain([group[ifo] for ifo in ifos], rows.start + order)
                # The file stays open.
                stack.pop_all()
            else:
                strain = np.stack(
                    [group[ifo][rows].astype(np.float32, copy=False) for ifo in ifos],
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
    with report_damage(where, SignalError):
        # The array is large, so it is copied only if it has to be reordered.
        if not stored and not np.array_equal(order, np.arange(rows.stop - rows.start)):
            strain = strain[order]
        try:
            return ProjectedSignals(
                ifos=tuple(ifos),
                sample_rate=rate,
                strain=strain,
                merger_size=merger_size,
                gps_time_ns=gps_time_ns,
                parameters=columns,
                num_rejected=num_rejected,
                attributes=attributes,
            )
        except SignalError as error:
            raise SignalError(f"{where}: {error}") from None


def _rows_in_span(
    parameters: h5py.Group, span: tuple[float, float] | None
) -> tuple[NDArray[np.int64], slice, NDArray[np.int64]]:
    """Find the rows of a set's signals in a span, and their order in time.

    Returns:
        GPS time of each signal in the span, ns, [n], ascending; the shortest slice of
        rows that contains all of them; and each signal's index within the slice, [n].
    """
    # Files that chirpwatch did not write may have the time as float seconds only.
    times = np.round(parameters["gps_time"][()] * NANOSECONDS).astype(np.int64)
    if "gps_time_ns" in parameters:
        times = parameters["gps_time_ns"][()]
    inside = np.ones(len(times), bool)
    if span is not None:
        start, stop = (round(time * NANOSECONDS) for time in span)
        inside = (times >= start) & (times < stop)
    members = np.flatnonzero(inside)
    rows = slice(members[0], members[-1] + 1) if len(members) else slice(0, 0)
    # They may also be in any order, with signals outside the span in between.
    order = np.argsort(times[rows], kind="stable")
    order = order[inside[rows][order]]
    return times[rows][order], rows, order
