"""Atomic updates of HDF5 files."""

from pathlib import Path

import pytest

from chirpwatch.background_file import (
    read_background,
    write_background,
)
from chirpwatch.errors import StrainError
from chirpwatch.hdf5 import amending
from chirpwatch.strain import NANOSECONDS
from tests.builders import RATE, START, white_strain

IFOS = ("H1", "L1")


@pytest.mark.parametrize("there", [True, False])
def test_concurrent_writes_by_another_command_are_kept(
    tmp_path: Path, there: bool
) -> None:
    path = tmp_path / "background.hdf5"
    if there:
        write_background(path, "test", START, white_strain(), RATE, {})
    with (
        pytest.raises(StrainError, match="another command changed the file"),
        amending(path) as file,
    ):
        file["mine"] = 1
        write_background(path, "test", START + 9, white_strain(), RATE, {})
    assert read_background(path, "test", IFOS, RATE)[-1].t0_ns > START * NANOSECONDS
    assert list(tmp_path.iterdir()) == [path]


def test_other_files_errors_are_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), amending(tmp_path / "out.hdf5"):
        (tmp_path / "other").read_bytes()
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StrainError, match=r"file/out.hdf5: could not be written"),
        amending(tmp_path / "file" / "out.hdf5"),
    ):
        pass
