"""Reading other packages' files: pickled glitches, and PyCBC time series."""

import pickle

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from pycbc.types import TimeSeries

from chirpwatch.background_file import read_background
from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.deepextractor import write_glitches
from chirpwatch.train.data.noise.pycbc_series import convert
from chirpwatch.train.data.recorded import RecordedStretches


def write(path, series) -> None:
    content = {"O3a": {"H1": {"Blip": {"h_input": series, "snr": [np.float64(9.0)]}}}}
    path.write_bytes(pickle.dumps(content))


def test_glitches_are_whitened_and_resampled_to_our_rate(tmp_path) -> None:
    rng = np.random.default_rng(1)
    times = (np.arange(57_344) - 28_672) / 4096
    burst = np.exp(-0.5 * (times / 0.01) ** 2) * np.cos(2 * np.pi * 150 * times)
    hum = np.sin(2 * np.pi * 10 * times)  # below the band
    noise = 30 * rng.standard_normal((2, len(times)))
    write(tmp_path / "dict.pkl", list(noise + 600 * burst + 900 * hum))
    path = tmp_path / "glitches.hdf5"
    assert write_glitches(path, tmp_path / "dict.pkl", 2048, 32.0) == 2
    with h5py.File(path) as file:
        glitches = file["glitches"][()]
        assert file.attrs["sample_rate"] == 2048
    assert glitches.shape == (2, 6 * 2048)
    assert glitches[:, :3000].std() == pytest.approx(1, abs=0.05)
    middle = glitches.shape[1] // 2
    assert (abs(np.abs(glitches).argmax(1) - middle) <= 2).all()
    # Half the band of white noise has half the variance.
    assert np.abs(glitches).max(1) == pytest.approx(600 / 30 * 2**0.5, rel=0.15)
    spectrum = np.abs(np.fft.rfft(glitches[:, :4096])).mean(0)
    assert spectrum[20] < 2 * np.median(spectrum), (
        "expected the hum below the highpass to be gone"
    )


class Trap:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [Trap(), {"O3a": {}}, [1, 2]])
def test_pickles_with_code_or_without_series_are_refused(
    content, tmp_path, capsys
) -> None:
    path = tmp_path / "dict.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(StrainError, match=r"dict\.pkl: expected"):
        write_glitches(tmp_path / "out.hdf5", path, 2048, 32.0)
    assert capsys.readouterr().out == ""
    assert [one.name for one in tmp_path.iterdir()] == ["dict.pkl"]


START = 1_238_205_077


def noise(length: int, rate: int) -> np.ndarray:
    return 1e-21 * np.random.default_rng(1).standard_normal(length * rate)


def test_series_of_pycbc_becomes_background_of_each_detector(tmp_path) -> None:
    """PyCBC writes the file; a sine keeps its amplitude and time."""
    source, out = tmp_path / "series.hdf", tmp_path / "background.hdf5"
    times = np.arange(150 * 4096) / 4096
    hum = 1e-19 * np.sin(2 * np.pi * 100 * times)
    TimeSeries(noise(150, 4096) + hum, delta_t=1 / 4096, epoch=START).save(str(source))
    done = CliRunner().invoke(convert, [str(source), str(out)])
    assert done.exit_code == 0 and "150 s of series.hdf under 'test/'" in done.output
    (segment,) = read_background(out, "test", ["H1", "L1"], 2048)
    assert segment.name == f"{START}-150" and not segment.simulated
    strain = segment.read("H1", 0, segment.size)
    assert (segment.read("L1", 0, segment.size) == strain).all()
    np.testing.assert_allclose(strain[100:-100], hum[200:-200:2], atol=6e-21)
    with h5py.File(out) as file:
        attributes = file[f"test/{START}-150"].attrs
        assert "series.hdf" in attributes["source"]
        assert "the same series of one detector" in attributes["detectors"]
    for ifo in ("H1", "L1"):
        RecordedStretches(out, "test", ifo, Geometry())


def test_series_is_written_unchanged_to_the_chosen_split_and_detectors(
    tmp_path,
) -> None:
    source, out = tmp_path / "series.hdf", tmp_path / "background.hdf5"
    TimeSeries(noise(8, 2048), delta_t=1 / 2048, epoch=START).save(str(source))
    arguments = [str(source), str(out), "--split", "train", "--ifo", "V1"]
    assert CliRunner().invoke(convert, arguments).exit_code == 0
    with h5py.File(out) as file:
        (group,) = file["train"].values()
        assert list(group) == ["V1"] and (group["V1"][()] == noise(8, 2048)).all()
    again = CliRunner().invoke(convert, arguments)
    assert again.exit_code == 1 and f"train/{START}-8 already exists" in again.output


@pytest.mark.parametrize(
    ("data", "attributes", "message"),
    [
        (None, {}, "no such file"),
        (noise(8, 2048), {"delta_t": None}, "expected a PyCBC time series"),
        (noise(8, 2048)[None], {}, r"expected one detector's samples"),
        (noise(8, 2048), {"delta_t": 0.0}, "a delta_t above zero, found 0 s"),
        (noise(8, 2048), {"start_time": START + 0.25}, "077.250000; cut the series"),
        (noise(8, 1024), {"delta_t": 1 / 1024}, "least 2048 Hz, found 1024 Hz"),
        (
            np.append(noise(8, 2048), np.nan),
            {},
            f"finite strain, found nan at GPS {START + 8}.000000",
        ),
    ],
)
def test_files_that_are_not_a_time_series_are_refused(
    data, attributes, message, tmp_path
) -> None:
    path, out = tmp_path / "series.hdf", tmp_path / "out.hdf5"
    if data is not None:
        with h5py.File(path, "w") as file:
            file["data"] = data
            known = {"delta_t": 1 / 2048, "start_time": float(START)} | attributes
            for name, value in known.items():
                if value is not None:
                    file["data"].attrs[name] = value
    done = CliRunner().invoke(convert, [str(path), str(out)])
    assert done.exit_code == 1 and message in done.output and str(path) in done.output
    assert not out.exists()
