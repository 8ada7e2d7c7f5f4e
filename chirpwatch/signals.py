"""Signal files: mergers to train on, and mergers projected to be injected.

``signals.hdf5`` holds, for training, ``{train,valid}/polarizations/{plus,cross}`` and
``{train,valid}/parameters/*``; for tests, one set for each segment and timeslide,
``test/{t0}-{duration}/{shifts}/{ifo}`` and ``…/parameters/*``.

The time of a projected signal, ``gps_time``, is the arrival of its merger (the peak of
the (2, 2) mode's amplitude) at *the detector that it reaches first*. It is not the
time at the geocentre, which may lie up to 21 ms away from any detector's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from chirpwatch.atomic import replacing
from chirpwatch.errors import SignalError

NANOSECONDS = 1_000_000_000
STORAGE = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


@dataclass(frozen=True)
class ProjectedSignals:
    """Mergers as the detectors see them, ready to be added to strain.

    The times are those of the analysis: a set for a timeslide is added after the
    detectors were shifted.

    Attributes:
        ifos: Detectors, in the order of the strain's axis.
        sample_rate: Hz.
        strain: Dimensionless, float32, [n, ifos, size].
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
    strain: NDArray[Any] = field(repr=False)
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
        finite = np.isfinite(self.strain).all(axis=(1, 2))
        if not finite.all():
            raise SignalError(
                f"signals: expected finite strain, found NaN or infinity in signal "
                f"{int(np.argmin(finite))}"
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
        SignalError: The set is in the file already.
    """
    name = f"test/{segment}/{shift_key(shifts)}"
    with replacing(path) as temporary, _amend(path, temporary) as file:
        if name in file:
            raise SignalError(f"{path}: {name} is there already")
        group = file.create_group(name)
        group.attrs.update(signals.attributes)
        group.attrs["sample_rate"] = signals.sample_rate
        group.attrs["merger_size"] = signals.merger_size
        group.attrs["num_rejected"] = signals.num_rejected
        for i, ifo in enumerate(signals.ifos):
            strain = signals.strain[:, i].astype(np.float32)
            group.create_dataset(ifo, data=strain, **STORAGE)
        columns = dict(signals.parameters)
        columns["gps_time"] = signals.gps_time
        columns["gps_time_ns"] = signals.gps_time_ns.astype(np.int64)
        for key, column in columns.items():
            group.create_dataset(f"parameters/{key}", data=column)


def read_test_signals(
    path: str | Path,
    segment: str,
    shifts: Sequence[float],
    ifos: Sequence[str] = ("H1", "L1"),
    sample_rate: int = 2048,
) -> ProjectedSignals:
    """Read the projected signals of one segment and timeslide, in order of time.

    Args:
        path: Signal file.
        segment: Name of the strain segment, ``{t0}-{duration}`` in s.
        shifts: Shift of each detector, s.
        ifos: Detectors wanted, in the order wanted.
        sample_rate: The rate expected, Hz.

    Raises:
        SignalError: The file, the set, a detector, a column or an attribute is
            missing; or the sample rate or a shape is another than expected.
    """
    name = f"test/{segment}/{shift_key(shifts)}"
    where = f"{path}, {name}"
    with _open(path) as file:
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
            columns = {key: data[()] for key, data in group["parameters"].items()}
            gps_time, _ = columns.pop("gps_time"), columns["snr"]
            strain = np.stack([_rows(group[ifo]) for ifo in ifos], axis=1)
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
    # Files by others hold the time in floating-point seconds alone.
    nanoseconds = np.round(np.asarray(gps_time) * NANOSECONDS).astype(np.int64)
    gps_time_ns = columns.pop("gps_time_ns", nanoseconds)
    order = np.argsort(gps_time_ns, kind="stable")
    try:
        return ProjectedSignals(
            ifos=tuple(ifos),
            sample_rate=rate,
            strain=strain[order],
            merger_size=merger_size,
            gps_time_ns=gps_time_ns[order],
            parameters={key: column[order] for key, column in columns.items()},
            num_rejected=num_rejected,
            attributes=attributes,
        )
    except (SignalError, IndexError) as error:
        raise SignalError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Polarizations:
    """Mergers before projection, to train on.

    Attributes:
        sample_rate: Hz.
        plus, cross: Strain, [n, size].
        merger_size: Sample of the merger.
        parameters: Columns [n].
        num_rejected: Draws that were thrown away for being too faint.
        attributes: Where the signals came from.
    """

    sample_rate: int
    plus: NDArray[Any] = field(repr=False)
    cross: NDArray[Any] = field(repr=False)
    merger_size: int
    parameters: Mapping[str, NDArray[Any]] = field(repr=False)
    num_rejected: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)


def write_polarizations(path: str | Path, split: str, signals: Polarizations) -> None:
    """Add a set of polarizations to a file; it appears whole or not at all.

    Args:
        path: The file; made where it is not there.
        split: ``train`` or ``valid``.
        signals: What is written.

    Raises:
        SignalError: The set is in the file already.
    """
    with replacing(path) as temporary, _amend(path, temporary) as file:
        if split in file:
            raise SignalError(f"{path}: {split} is there already")
        group = file.create_group(split)
        group.attrs.update(signals.attributes)
        group.attrs["sample_rate"] = signals.sample_rate
        group.attrs["merger_size"] = signals.merger_size
        group.attrs["num_rejected"] = signals.num_rejected
        for name in ("plus", "cross"):
            data = getattr(signals, name).astype(np.float32)
            group.create_dataset(f"polarizations/{name}", data=data, **STORAGE)
        for name, column in signals.parameters.items():
            group.create_dataset(f"parameters/{name}", data=column)


def read_polarizations(path: str | Path, split: str) -> Polarizations:
    """Read a set of polarizations.

    Args:
        path: Signal file.
        split: ``train`` or ``valid``.

    Raises:
        SignalError: The file or part of the set is missing.
    """
    with _open(path) as file:
        try:
            group = file[split]
            attributes = dict(group.attrs)
            return Polarizations(
                sample_rate=int(attributes.pop("sample_rate")),
                plus=group["polarizations/plus"][()],
                cross=group["polarizations/cross"][()],
                merger_size=int(attributes.pop("merger_size")),
                parameters={key: data[()] for key, data in group["parameters"].items()},
                num_rejected=int(attributes.pop("num_rejected")),
                attributes=attributes,
            )
        except KeyError as error:
            raise SignalError(
                f"{path}: expected {split}/polarizations/{{plus,cross}} and "
                f"{split}/parameters with the attributes sample_rate, merger_size and "
                f"num_rejected; missing: {error}"
            ) from None


def _rows(dataset: h5py.Dataset) -> NDArray[Any]:
    rows: NDArray[Any] = np.atleast_2d(dataset[()].astype(np.float32))
    return rows


def _open(path: str | Path) -> h5py.File:
    if not Path(path).exists():
        raise SignalError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SignalError(f"{path}: expected an HDF5 file: {error}") from None


def _amend(path: str | Path, temporary: Path) -> h5py.File:
    """Open a temporary copy of ``path``, or a new file, for writing."""
    if not Path(path).exists():
        return h5py.File(temporary, "w")
    with _open(path):
        temporary.write_bytes(Path(path).read_bytes())
    return h5py.File(temporary, "a")
