"""Our strain files: written data are read back unchanged."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from chirpwatch.background_file import (
    NewSegment,
    read_background,
    write_background,
    write_segments,
)
from chirpwatch.errors import StrainError
from chirpwatch.strain import NANOSECONDS
from tests.builders import RATE, START, white_strain

IFOS = ("H1", "L1")


def test_background_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path, data = tmp_path / "background.hdf5", white_strain()
    write_background(path, "test", START + 8, white_strain(seed=1), RATE, {})
    write_background(path, "test", START, data, RATE, {"simulated": True})
    first, second = read_background(path, "test", IFOS, RATE)
    assert (first.t0_ns, first.size) == (START * NANOSECONDS, 4 * RATE)
    assert first.simulated
    assert not second.simulated
    assert first.name == f"{START}-4"
    for ifo in IFOS:
        assert (first.strain[ifo][:] == data[ifo]).all()
        assert (first.read(ifo, 5, 9) == data[ifo][5:9].astype(np.float32)).all()
    with h5py.File(path) as file:
        dataset = file[f"test/{START}-4/H1"]
        assert dataset.attrs["x0"] == START
        assert dataset.attrs["dx"] == 1 / RATE


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "background.hdf5"
    write_background(path, "test", START, white_strain(), RATE, {})
    before = path.read_bytes()
    with pytest.raises(StrainError, match="already exists"):
        write_background(path, "test", START, white_strain(), RATE, {})
    with pytest.raises(TypeError):
        write_background(path, "test", START + 9, white_strain(), RATE, {"x": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_long_columns_beside_the_strain_are_ignored(
    tmp_path: Path,
) -> None:
    path, data, times = (
        tmp_path / "background.hdf5",
        white_strain(),
        np.arange(20_000.0),
    )
    pieces = {ifo: [data[ifo][:5000], data[ifo][5000:]] for ifo in IFOS}
    segment = NewSegment(START, 4, pieces, {}, {"glitches/H1": times})
    write_segments(path, "test", [segment], RATE)
    (found,) = read_background(path, "test", IFOS, RATE)
    assert (found.strain["L1"][:] == data["L1"]).all()
    with h5py.File(path) as file:
        assert (file[f"test/{START}-4/glitches/H1"][:] == times).all()
    with pytest.raises(StrainError, match="detectors V1, found H1, L1"):
        read_background(path, "test", ("V1",), RATE)


def test_bad_files_are_refused_with_problem_and_place(tmp_path: Path) -> None:
    path = tmp_path / "background.hdf5"
    with pytest.raises(StrainError, match="no such file"):
        read_background(path, "test", IFOS, RATE)
    path.write_text("no HDF5")
    with pytest.raises(StrainError, match="expected an HDF5 file"):
        read_background(path, "test", IFOS, RATE)
    path.unlink()
    write_background(path, "train", START, white_strain(), RATE, {})
    with pytest.raises(StrainError, match="split 'test', found the splits train"):
        read_background(path, "test", IFOS, RATE)
    with pytest.raises(StrainError, match="expected detectors H1, V1, found H1, L1"):
        read_background(path, "train", ("H1", "V1"), RATE)
    with pytest.raises(StrainError, match="expected a sample rate of 4096 Hz"):
        read_background(path, "train", IFOS, 4096)
