"""One detector's strain in PyCBC's HDF5 layout, as background of several detectors.

``python -m chirpwatch.train.data.noise.pycbc_series FILE OUT.hdf5 --ifo H1 --ifo L1``
writes the same series as the strain of each detector. ``chirpwatch train validate``
and ``chirpwatch train fit`` draw the times of each detector by themselves, and so make
pairs of noise of it. A search would find every glitch in all detectors at once.
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
    """Read a series as ``pycbc.types.TimeSeries.save`` writes it.

    Args:
        path: HDF5 file: ``data``, with the attributes ``delta_t`` (s) and
            ``start_time`` (GPS s).

    Returns:
        GPS time of the first sample, s; the sample rate, Hz; and the strain, float64,
        [size].

    Raises:
        StrainError: No such file, another layout, a start between two seconds, no
            sample, or one that is not finite.
    """
    if not Path(path).exists():
        raise StrainError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            dataset = file[DATASET]
            start = float(dataset.attrs["start_time"])
            step = float(dataset.attrs["delta_t"])
            strain: NDArray[Any] = dataset[()].astype(np.float64)
    # HDF5's own errors are of any of these kinds; others have another layout.
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise StrainError(
            f"{path}: expected a series of PyCBC's ('{DATASET}' with 'delta_t' and "
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
            "the series there"
        )
    finite = np.isfinite(strain)
    if not finite.all():
        first = int(np.argmin(finite))
        raise StrainError(
            f"{where}: expected finite strain, found {strain[first]} at GPS "
            f"{start + first * step:.6f}; cut the series there"
        )
    rate: float = 1 / step
    # The inverse of a step that has been rounded is off by as much.
    rate = round(rate) if math.isclose(rate, round(rate), rel_tol=1e-9) else rate
    return int(start), rate, strain


def write_series(
    path: str | Path,
    source: str | Path,
    split: str,
    ifos: Sequence[str],
    sample_rate: int,
) -> int:
    """Convert a file.

    Args:
        path: Background file, to which the segment is added as a whole or not at all.
        source: See ``read_series``.
        split: ``train``, ``valid`` or ``test``.
        ifos: Detectors whose strain it becomes.
        sample_rate: Hz; the series may have a higher one.

    Returns:
        Samples of each detector.

    Raises:
        StrainError: The source is no such series or of a lower rate, the segment is in
            the file already, or the disk is full.
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
    help="What the segment is for.",
)
@click.option(
    "--ifo",
    "ifos",
    multiple=True,
    default=Geometry().ifos,
    show_default=True,
    help="Detector whose strain the series becomes; several times for several.",
)
def convert(source: Path, out: Path, split: str, ifos: tuple[str, ...]) -> None:
    """Add one detector's strain in FILE, of PyCBC's layout, to the background file OUT.

    Each detector gets the same series: for 'chirpwatch train validate' and 'fit', which
    draw independent times in each, and not for searches.
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
