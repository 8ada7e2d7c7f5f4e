"""Convert one detector's strain from PyCBC's HDF5 layout to a background file.

``python -m chirpwatch.train.data.noise.pycbc_series FILE OUT.hdf5 --ifo H1 --ifo L1``
writes the same series for each detector. That suits ``chirpwatch train validate`` and
``chirpwatch train fit``, which draw each detector's times independently. It does not
suit a search, in which every glitch would be coincident in all detectors.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
from numpy.typing import NDArray

from chirpwatch.background_file import write_background
from chirpwatch.errors import (
    ChirpwatchError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.strain import resample

DATASET = "data"


def read_series(path: str | Path) -> tuple[int, float, NDArray[Any]]:
    """Read a series that ``pycbc.types.TimeSeries.save`` wrote.

    Args:
        path: HDF5 file with the dataset ``data`` and its attributes ``delta_t`` (s) and
            ``start_time`` (GPS s).

    Returns:
        GPS time of the first sample, s; the sample rate, Hz; and the strain, float64,
        [size].

    Raises:
        StrainError: No such file, another layout, a start that is not a whole second,
            no samples, or a sample that is not finite.
    """
    if not Path(path).exists():
        raise StrainError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            dataset = file[DATASET]
            start = float(dataset.attrs["start_time"])
            step = float(dataset.attrs["delta_t"])
            strain: NDArray[Any] = dataset[()].astype(np.float64)
    # h5py raises any of these for a damaged file or another layout.
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise StrainError(
            f"{path}: expected a PyCBC time series ('{DATASET}' with 'delta_t' and "
            f"'start_time'): {error}"
        ) from None
    where = f"{path}, {DATASET}"
    if strain.ndim != 1 or not len(strain):
        raise StrainError(
            f"{where}: expected one detector's samples, [size], found the shape "
            f"{strain.shape}"
        )
    if not (math.isfinite(step) and step > 0):
        raise StrainError(f"{where}: expected a delta_t above zero, found {step:g} s")
    if not start.is_integer():
        raise StrainError(
            f"{where}: expected a start_time of whole seconds, found {start:.6f}; cut "
            f"the series at {math.ceil(start)}"
        )
    finite = np.isfinite(strain)
    if not finite.all():
        first = int(np.argmin(finite))
        raise StrainError(
            f"{where}: expected finite strain, found {strain[first]} at GPS "
            f"{start + first * step:.6f}; cut the series there"
        )
    rate: float = 1 / step
    # A rounded delta_t has an inverse that is not quite the whole rate.
    rate = round(rate) if math.isclose(rate, round(rate), rel_tol=1e-9) else rate
    return int(start), rate, strain


def write_series(
    path: str | Path,
    source: str | Path,
    split: str,
    ifos: Sequence[str],
    sample_rate: int,
) -> int:
    """Add a PyCBC series to a background file, as the strain of each detector.

    Args:
        path: Background file; the segment is added completely or not at all.
        source: See ``read_series``.
        split: ``train``, ``valid`` or ``test``.
        ifos: Detectors under which the series is written.
        sample_rate: Rate to which the series is resampled, Hz; at most its own.

    Returns:
        Number of samples written for each detector.

    Raises:
        StrainError: See ``read_series``; or the source's rate is lower, the file has
            the segment already, or the disk is full.
    """
    start, rate, strain = read_series(source)
    try:
        strain = resample(strain, rate, sample_rate, " and ".join(ifos))
    except StrainError as error:
        raise StrainError(f"{source}: {error}") from None
    attributes = {
        "simulated": False,
        "source": f"{Path(source).name}, {DATASET} (PyCBC's layout)",
        "source_rate": rate,
        "detectors": f"{', '.join(ifos)}: the same series of one detector in each",
    }
    write_background(
        path, split, start, dict.fromkeys(ifos, strain), sample_rate, attributes
    )
    return len(strain)


@click.command()
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test"]),
    default="test",
    show_default=True,
    help="Split to which the segment belongs.",
)
@click.option(
    "--ifo",
    "ifos",
    multiple=True,
    default=Geometry().ifos,
    show_default=True,
    help="Detector under which the series is written; repeat for several.",
)
def convert(source: Path, out: Path, split: str, ifos: tuple[str, ...]) -> None:
    """Add FILE, one detector's strain in PyCBC's layout, to the background file OUT.

    Every detector gets the same series. Use it with 'chirpwatch train validate' and
    'chirpwatch train fit', which draw each detector's times independently, not in a
    search.
    """
    rate = Geometry().sample_rate
    try:
        size = write_series(out, source, split, ifos, rate)
    except ChirpwatchError as error:
        click.echo(f"pycbc_series: {error}", err=True)
        sys.exit(1)
    click.echo(
        f"{out}: {size / rate:g} s of {source.name} under '{split}/', the same for "
        f"{' and '.join(ifos)}"
    )


if __name__ == "__main__":
    convert()
