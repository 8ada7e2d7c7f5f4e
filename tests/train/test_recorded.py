"""Recorded strain as a source of training noise."""

import pickle

import h5py
import numpy as np
import pytest

from chirpwatch.background_file import write_background
from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.recorded import (
    PIECE_SIZE,
    RecordedStretches,
)
from chirpwatch.train.evaluation.effort import Effort
from chirpwatch.train.fitting.fit import fit
from chirpwatch.train.networks.checkpoint import load_checkpoint
from tests.networks import TINY, TINY_EFFORT

GEOMETRY = Geometry()
RATE = GEOMETRY.sample_rate
LEVEL = 1e-21
START = 1_000_000_000
EDGE = PIECE_SIZE // RATE  # length of the pieces in which strain is checked, s


def write(path, *segments, rate=RATE) -> None:
    """Write white noise; segments are (split, start, duration)."""
    for number, (split, start, duration) in enumerate(segments):
        rng = np.random.default_rng(number)
        strain = {
            ifo: LEVEL * rng.standard_normal(duration * rate) for ifo in GEOMETRY.ifos
        }
        write_background(path, split, start, strain, rate, {"simulated": True})


@pytest.fixture(scope="module")
def background(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "background.hdf5"
    write(
        path,
        ("train", START, 300),
        ("train", START + 300, 20),  # too short for a stretch
        ("train", START + 400, 140),
        ("valid", START + 600, 150),
    )
    return path


def place(path, split, ifo, strain) -> tuple[str, int]:
    """Find the segment and the sample at which a piece of strain lies in the file."""
    with h5py.File(path) as file:
        for name, group in file[split].items():
            (found,) = np.nonzero(group[ifo][()] == strain[0])
            if len(found):
                start = int(found[0])
                assert (group[ifo][start : start + len(strain)] == strain).all()
                return name, start
    raise AssertionError("not from this split")


def test_stretches_are_the_file_s_strain_with_its_own_spectrum(background) -> None:
    source = RecordedStretches(background, "train", "L1", GEOMETRY)
    strain, asd = source.draw(129 * RATE, np.random.default_rng(1))
    place(background, "train", "L1", strain)
    assert strain.dtype == np.float64 and asd.shape == (2049,)
    # One-sided: white noise of unit variance has the density 2 / rate.
    assert np.median(asd[64:-1]) == pytest.approx(LEVEL * np.sqrt(2 / RATE), rel=0.02)


def test_starts_are_uniform_and_independent_between_detectors(background) -> None:
    size = 129 * RATE
    places = {}
    for ifo in GEOMETRY.ifos:
        source = RecordedStretches(background, "train", ifo, GEOMETRY)
        rng = np.random.default_rng([3, *ifo.encode()])
        draws = [source.draw(size, rng)[0] for _ in range(60)]
        places[ifo] = [place(background, "train", ifo, strain) for strain in draws]
    assert len({*places["H1"]} & {*places["L1"]}) == 0
    names = [name for found in places.values() for name, _ in found]
    # Segments of 300 s and 140 s have 171 s and 11 s of possible starts.
    assert names.count(f"{START}-300") == pytest.approx(120 * 171 / 182, abs=8)
    starts = [i for found in places.values() for name, i in found if "-300" in name]
    assert min(starts) < 20 * RATE and max(starts) > 151 * RATE


def test_a_generator_state_gives_the_same_stretch_in_any_process(background) -> None:
    source = RecordedStretches(background, "train", "H1", GEOMETRY)
    one, _ = source.draw(8192, np.random.default_rng(5))
    again = pickle.loads(pickle.dumps(source))
    assert (again.draw(8192, np.random.default_rng(5))[0] == one).all()


def test_stretch_longer_than_every_segment_is_refused(background) -> None:
    source = RecordedStretches(background, "valid", "H1", GEOMETRY)
    with pytest.raises(StrainError, match="at least 200 s under 'valid/'"):
        source.draw(200 * RATE, np.random.default_rng(1))


def spoil(path, value) -> None:
    with h5py.File(path, "a") as file:
        file[f"train/{START}-150/H1"][10 * RATE + RATE // 2] = value


def write_with_zeros(path, *spans) -> None:
    """Write one detector's white noise with spans of zeros, given in samples."""
    strain = LEVEL * np.random.default_rng(1).standard_normal((EDGE + 52) * RATE)
    for start, size in spans:
        strain[start : start + size] = 0
    write_background(path, "train", START, {"H1": strain}, RATE, {"simulated": True})


@pytest.mark.parametrize(
    ("start", "length"), [(0, 100), (EDGE - 48, 100), (EDGE - 0.5, 1), (EDGE, 52)]
)
def test_constant_strain_is_refused(start, length, tmp_path) -> None:
    """Also at the first and last samples, and across the pieces in which it is read."""
    path = tmp_path / "background.hdf5"
    write_with_zeros(path, (round(start * RATE), length * RATE))
    where = (
        rf"background.hdf5, train/{START}-{EDGE + 52}/H1: expected strain that changes"
    )
    what = rf"found 0.0 for {length} s from GPS {START + start:.6f}; cut"
    with pytest.raises(StrainError, match=f"{where}, {what}"):
        RecordedStretches(path, "train", "H1", GEOMETRY)


def test_strain_constant_for_less_than_a_second_is_accepted(tmp_path) -> None:
    path, size = tmp_path / "background.hdf5", RATE - 1
    write_with_zeros(
        path, (0, size), (PIECE_SIZE - size // 2, size), ((EDGE + 51) * RATE + 1, size)
    )
    RecordedStretches(path, "train", "H1", GEOMETRY)


def test_spectrum_has_the_frequency_grid_of_its_strain(tmp_path) -> None:
    geometry = Geometry(sample_rate=1024)
    times = np.arange(150 * 1024) / 1024
    strain = LEVEL * np.random.default_rng(1).standard_normal(len(times))
    strain += 10 * LEVEL * np.sin(2 * np.pi * 100 * times)
    path = tmp_path / "background.hdf5"
    write_background(path, "train", START, {"H1": strain}, 1024, {"simulated": True})
    source = RecordedStretches(path, "train", "H1", geometry)
    _, asd = source.draw(129 * 1024, np.random.default_rng(1))
    assert len(asd) == 1025 and np.argmax(asd) == 200  # 0.5 Hz apart


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (
            lambda path: write(path, ("valid", START, 150)),
            "split 'train', found the splits valid",
        ),
        (
            lambda path: write(path, ("train", START, 60), ("train", START + 99, 90)),
            "at least 129 s under 'train/', found at most 90 s",
        ),
        (
            lambda path: write(path, ("train", START, 150), rate=4096),
            "sample rate of 2048 Hz, found 4096 Hz",
        ),
        (
            lambda path: write(path, ("train", START, 150), ("test", START + 149, 150)),
            "'train' and 'test' to be disjoint in time, found GPS "
            f"{START + 149}.000000 to {START + 150}.000000 in both",
        ),
        (
            lambda path: (write(path, ("train", START, 150)), spoil(path, np.nan)),
            f"found nan at GPS {START + 10}.500000",
        ),
        (
            lambda path: (write(path, ("train", START, 150)), spoil(path, np.inf)),
            f"found inf at GPS {START + 10}.500000",
        ),
    ],
    ids=["missing", "split", "short", "rate", "overlap", "nan", "inf"],
)
def test_strain_that_cannot_be_trained_on_is_refused(make, message, tmp_path) -> None:
    path = tmp_path / "background.hdf5"
    make(path)
    with pytest.raises(StrainError, match=message) as caught:
        RecordedStretches(path, "train", "H1", GEOMETRY)
    assert str(path) in str(caught.value)


def test_training_on_recorded_strain(background, tmp_path) -> None:
    more = (f"--data.background={background}", "--steps=2", "--data.workers=1")
    fit(tmp_path / "run", ["split"], arguments=(*TINY, *more))
    _, details = load_checkpoint(tmp_path / "run" / "network.ckpt")
    assert details["background"] == str(background) and details["simulated"]
    assert len(details["data_hash"]) == 64


def test_the_report_also_covers_the_test_split(tmp_path, capsys) -> None:
    path = tmp_path / "background.hdf5"
    write(path, ("train", 1000, 140), ("valid", 2000, 140), ("test", 3000, 100))
    more = (*TINY, "--steps=1", f"--data.background={path}")
    fit(tmp_path / "run", ["split"], arguments=more)
    assert "report will cover simulated noise only: " in capsys.readouterr().out
    write(path, ("test", 4000, 140))
    tiny = {name: value for name, value in TINY_EFFORT.items() if name != "slides"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "chirpwatch.train.evaluation.effort.QUICK", Effort(**tiny, slides=1)
        )
        fit(tmp_path / "again", ["split"], arguments=(*more, "--figures=quick"))
    told = (tmp_path / "again" / "validation.md").read_text()
    assert "strain of background.hdf5" in told


def test_strain_damaged_during_training_ends_it_with_one_line(
    background, tmp_path
) -> None:
    more = (f"--data.background={background}", "--data.geometry.psd_length=128")
    with pytest.raises(StrainError, match=r"at least 257 s .* 'valid/'") as caught:
        fit(tmp_path / "run", ["split"], arguments=(*TINY, *more))
    assert "\n" not in str(caught.value)
