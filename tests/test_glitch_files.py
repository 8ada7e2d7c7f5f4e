"""Recorded glitches from a pickle."""

import pickle

import h5py
import numpy as np
import pytest

from chirpwatch.errors import StrainError
from train.data.deepextractor import write_glitches


def write(path, series) -> None:
    content = {"O3a": {"H1": {"Blip": {"h_input": series, "snr": [np.float64(9.0)]}}}}
    path.write_bytes(pickle.dumps(content))


def test_glitches_come_out_at_our_rate_in_units_of_their_noise(tmp_path) -> None:
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
    # Half the band of white noise has half its variance.
    assert np.abs(glitches).max(1) == pytest.approx(600 / 30 * 2**0.5, rel=0.15)
    spectrum = np.abs(np.fft.rfft(glitches[:, :4096])).mean(0)
    assert spectrum[20] < 2 * np.median(spectrum), "the hum is gone"


class Trap:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [Trap(), {"O3a": {}}, [1, 2]])
def test_what_could_run_or_holds_no_series_is_refused(
    content, tmp_path, capsys
) -> None:
    path = tmp_path / "dict.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(StrainError, match=r"dict\.pkl: expected"):
        write_glitches(tmp_path / "out.hdf5", path, 2048, 32.0)
    assert capsys.readouterr().out == ""
    assert [one.name for one in tmp_path.iterdir()] == ["dict.pkl"]
