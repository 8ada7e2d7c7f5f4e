from pathlib import Path

import h5py
import numpy as np
import pytest
from gwpy.timeseries import TimeSeries

from chirpwatch.background_file import (
    NewSegment,
    read_background,
    write_background,
    write_segments,
)
from chirpwatch.errors import StrainError
from chirpwatch.gwosc_file import read_gwosc, read_gwosc_file
from chirpwatch.hdf5 import amending
from chirpwatch.strain import NANOSECONDS, Segment

IFOS = ("H1", "L1")
RATE = 2048
START = 1262304000


def strain(seconds: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {ifo: 1e-21 * rng.standard_normal(seconds * RATE) for ifo in IFOS}


def write_gwosc(path: Path, ifo: str, data: np.ndarray, rate: int = 4096) -> Path:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("strain/Strain", data=data)
        dataset.attrs["Xstart"] = START
        dataset.attrs["Xspacing"] = 1 / rate
        file["meta/Detector"] = ifo
    return path


def test_background_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path, data = tmp_path / "background.hdf5", strain()
    write_background(path, "test", START + 8, strain(seed=1), RATE, {})
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
    write_background(path, "test", START, strain(), RATE, {})
    before = path.read_bytes()
    with pytest.raises(StrainError, match="already exists"):
        write_background(path, "test", START, strain(), RATE, {})
    with pytest.raises(TypeError):
        write_background(path, "test", START + 9, strain(), RATE, {"x": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_columns_beside_the_strain_may_be_long_and_are_passed_over(
    tmp_path: Path,
) -> None:
    path, data, times = tmp_path / "background.hdf5", strain(), np.arange(20_000.0)
    pieces = {ifo: [data[ifo][:5000], data[ifo][5000:]] for ifo in IFOS}
    segment = NewSegment(START, 4, pieces, {}, {"glitches/H1": times})
    write_segments(path, "test", [segment], RATE)
    (found,) = read_background(path, "test", IFOS, RATE)
    assert (found.strain["L1"][:] == data["L1"]).all()
    with h5py.File(path) as file:
        assert (file[f"test/{START}-4/glitches/H1"][:] == times).all()
    with pytest.raises(StrainError, match="detectors V1, found H1, L1"):
        read_background(path, "test", ("V1",), RATE)


@pytest.mark.parametrize("there", [True, False])
def test_what_another_command_wrote_meanwhile_stays(
    tmp_path: Path, there: bool
) -> None:
    path = tmp_path / "background.hdf5"
    if there:
        write_background(path, "test", START, strain(), RATE, {})
    with (
        pytest.raises(StrainError, match="another command changed the file"),
        amending(path) as file,
    ):
        file["mine"] = 1
        write_background(path, "test", START + 9, strain(), RATE, {})
    assert read_background(path, "test", IFOS, RATE)[-1].t0_ns > START * NANOSECONDS
    assert list(tmp_path.iterdir()) == [path]


def test_errors_of_other_files_are_not_told_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), amending(tmp_path / "out.hdf5"):
        (tmp_path / "other").read_bytes()
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StrainError, match=r"file/out.hdf5: could not be written"),
        amending(tmp_path / "file" / "out.hdf5"),
    ):
        pass


def test_bad_files_are_refused_with_what_and_where(tmp_path: Path) -> None:
    path = tmp_path / "background.hdf5"
    with pytest.raises(StrainError, match="no such file"):
        read_background(path, "test", IFOS, RATE)
    path.write_text("no HDF5")
    with pytest.raises(StrainError, match="expected an HDF5 file"):
        read_background(path, "test", IFOS, RATE)
    path.unlink()
    write_background(path, "train", START, strain(), RATE, {})
    with pytest.raises(StrainError, match=r"'test/', found \['train'\]"):
        read_background(path, "test", IFOS, RATE)
    with pytest.raises(StrainError, match="expected detectors H1, V1, found H1, L1"):
        read_background(path, "train", ("H1", "V1"), RATE)
    with pytest.raises(StrainError, match="expected a sample rate of 4096 Hz"):
        read_background(path, "train", IFOS, 4096)


def test_detectors_of_different_length_are_refused() -> None:
    data = strain()
    data["L1"] = data["L1"][:-1]
    with pytest.raises(StrainError, match="same number of samples"):
        Segment(START * NANOSECONDS, RATE, data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_strain_that_is_not_finite_is_refused_with_its_time(value: float) -> None:
    data = strain()
    data["L1"][RATE + RATE // 2] = value
    segment = Segment(START * NANOSECONDS, RATE, data)
    assert segment.read("L1", 0, RATE).shape == (RATE,)
    with pytest.raises(StrainError, match=rf"L1 at GPS {START + 1}\.500000"):
        segment.read("L1", 0, 2 * RATE)


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
    # Names tell segments apart that begin in the same second.
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
        # As if the index of its chunks had lost one.
        attributes = dict(file["strain/Strain"].attrs)
        del file["strain/Strain"]
        lossy = file.create_dataset("strain/Strain", (4096,), "f8", chunks=(1024,))
        lossy[:3072] = 1e-21
        lossy.attrs.update(attributes)
    with pytest.raises(StrainError, match="expected 4 chunks of strain, found 3"):
        read_gwosc([tmp_path / "L1.hdf5", h1], IFOS, RATE)
    write_background(tmp_path / "ours.hdf5", "test", START, strain(), RATE, {})
    with pytest.raises(StrainError, match="GWOSC's layout"):
        read_gwosc([tmp_path / "ours.hdf5", h1], IFOS, RATE)


def test_gwosc_strain_is_resampled_as_gwpy_does(gwosc_files: list[Path]) -> None:
    (segment,) = read_gwosc(gwosc_files, IFOS, RATE)
    assert (segment.t0_ns, segment.duration) == (1126259446 * NANOSECONDS, 32)
    for path, ifo in zip(gwosc_files, IFOS, strict=True):
        expected = TimeSeries.read(path, format="hdf5.gwosc").resample(RATE)
        # In the band of the analysis, away from the edges: filters differ elsewhere.
        ours = TimeSeries(segment.strain[ifo], sample_rate=RATE)
        both = [
            series.bandpass(32, 600).value[2 * RATE : -2 * RATE]
            for series in (ours, expected)
        ]
        assert np.corrcoef(*both)[0, 1] > 0.9999
        assert np.abs(both[0] - both[1]).max() < 0.01 * both[1].std()


def test_a_chunk_that_does_not_decompress_is_refused(tmp_path: Path) -> None:
    """HDF5 itself may look for its end for ever."""
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
