"""Files in GWOSC's format: gaps, rates, and damaged files."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from gwpy.timeseries import TimeSeries

from chirpwatch.background_file import write_background
from chirpwatch.errors import StrainError
from chirpwatch.gwosc_file import read_gwosc, read_gwosc_file
from chirpwatch.strain import NANOSECONDS, Segment
from tests.builders import RATE, START, white_strain, write_gwosc

IFOS = ("H1", "L1")


def test_gwosc_files_are_cut_at_gaps_of_either_detector(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    h1, l1 = 1e-21 * rng.standard_normal((2, 30 * 4096))
    h1[10 * 4096 : 11 * 4096] = np.nan
    l1[25 * 4096 :] = np.nan
    files = [
        write_gwosc(tmp_path / "L1.hdf5", "L1", l1),
        write_gwosc(tmp_path / "H1.hdf5", "H1", h1),
    ]
    segments = read_gwosc(files, IFOS, RATE)
    assert [s.name for s in segments] == [f"{START}-10", f"{START + 11}-14"]
    # Segments that begin in the same second have different names.
    later = Segment(segments[0].t0_ns + 1_000, RATE, segments[0].strain)
    assert later.name == f"{START}.000001-10"
    assert all(np.isfinite(s.read("H1", 0, s.size)).all() for s in segments)


def test_bad_gwosc_files_are_refused(tmp_path: Path) -> None:
    data = 1e-21 * np.ones(4096)
    h1 = write_gwosc(tmp_path / "H1.hdf5", "H1", data)
    with pytest.raises(StrainError, match="found a second one for H1"):
        read_gwosc([h1, h1], IFOS, RATE)
    v1 = write_gwosc(tmp_path / "V1.hdf5", "V1", data)
    for files, found in (([h1], "H1"), ([h1, v1], "H1, V1")):
        with pytest.raises(StrainError, match=f"detectors H1, L1, found {found}"):
            read_gwosc(files, IFOS, RATE)
    slow = [write_gwosc(tmp_path / f"slow-{ifo}.hdf5", ifo, data, 1024) for ifo in IFOS]
    with pytest.raises(StrainError, match="at least 2048 Hz, found 1024 Hz"):
        read_gwosc(slow, IFOS, RATE)
    data[7] = np.inf
    with pytest.raises(StrainError, match="expected finite strain, found inf"):
        read_gwosc([write_gwosc(tmp_path / "L1.hdf5", "L1", data), h1], IFOS, RATE)
    with h5py.File(write_gwosc(tmp_path / "L1.hdf5", "L1", data), "r+") as file:
        # As if a chunk were missing from the index.
        attributes = dict(file["strain/Strain"].attrs)
        del file["strain/Strain"]
        lossy = file.create_dataset("strain/Strain", (4096,), "f8", chunks=(1024,))
        lossy[:3072] = 1e-21
        lossy.attrs.update(attributes)
    with pytest.raises(StrainError, match="expected 4 chunks of strain, found 3"):
        read_gwosc([tmp_path / "L1.hdf5", h1], IFOS, RATE)
    write_background(tmp_path / "ours.hdf5", "test", START, white_strain(), RATE, {})
    with pytest.raises(StrainError, match="GWOSC's layout"):
        read_gwosc([tmp_path / "ours.hdf5", h1], IFOS, RATE)


def test_gwosc_strain_is_resampled_as_gwpy_does(gwosc_files: list[Path]) -> None:
    (segment,) = read_gwosc(gwosc_files, IFOS, RATE)
    assert (segment.t0_ns, segment.duration) == (1126259446 * NANOSECONDS, 32)
    for path, ifo in zip(gwosc_files, IFOS, strict=True):
        expected = TimeSeries.read(path, format="hdf5.gwosc").resample(RATE)
        # Within the analysis band and away from the edges; elsewhere filters differ.
        ours = TimeSeries(segment.strain[ifo], sample_rate=RATE)
        both = [
            series.bandpass(32, 600).value[2 * RATE : -2 * RATE]
            for series in (ours, expected)
        ]
        assert np.corrcoef(*both)[0, 1] > 0.9999
        assert np.abs(both[0] - both[1]).max() < 0.01 * both[1].std()


def test_a_chunk_that_does_not_decompress_is_refused(tmp_path: Path) -> None:
    """HDF5 itself may search for its end forever."""
    path = tmp_path / "H1.hdf5"
    with h5py.File(path, "w") as file:
        data = np.linspace(0, 1e-21, 4096)
        dataset = file.create_dataset("strain/Strain", data=data, compression="gzip")
        dataset.attrs["Xstart"], dataset.attrs["Xspacing"] = 1e9, 1 / 2048
        file["meta/Detector"] = b"H1"
        chunk = dataset.id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size - 1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StrainError, match=r"H1.hdf5.*chunk 1 of the strain"):
        read_gwosc_file(path)
