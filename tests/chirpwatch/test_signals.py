"""Signal files: written data are read back unchanged, and errors are clear."""

import dataclasses
import importlib.resources

import h5py
import numpy as np
import pytest

from chirpwatch.errors import SignalError
from chirpwatch.signals import (
    ProjectedSignals,
    read_test_signals,
    shift_key,
    write_test_signals,
)
from chirpwatch.streamer.replay.injections import (
    add_signals,
    signal_starts,
)

SEGMENT = "1262304000-1200"


@pytest.fixture
def signals() -> ProjectedSignals:
    rng = np.random.default_rng(1)
    return ProjectedSignals(
        ifos=("H1", "L1"),
        sample_rate=2048,
        strain=rng.normal(scale=1e-22, size=(3, 2, 8192)).astype(np.float32),
        merger_size=7168,
        gps_time_ns=1262304000_000000000 + np.array([50, 51, 99]) * 488281,
        parameters={"snr": np.array([5.0, 6.0, 7.0]), "mass_1": np.ones(3)},
        num_rejected=17,
        attributes={"simulated": True},
    )


@pytest.mark.parametrize(
    ("shifts", "key"),
    [
        ((0, 0), "0,0"),
        ((0.0, 4.0), "0,4"),
        ((-0.0, -2.5), "0,-2.5"),
        ((1, 0.125), "1,0.125"),
    ],
)
def test_shift_keys_are_plain_seconds(shifts, key) -> None:
    assert shift_key(shifts) == key


def test_written_signals_are_read_back_unchanged(tmp_path, signals) -> None:
    path = tmp_path / "signals.hdf5"
    write_test_signals(path, SEGMENT, (0, 4), signals)
    found = read_test_signals(path, SEGMENT, (0.0, 4.0))
    assert found.strain.dtype == np.float32
    np.testing.assert_array_equal(found.strain, signals.strain)
    np.testing.assert_array_equal(found.gps_time_ns, signals.gps_time_ns)
    np.testing.assert_array_equal(found.parameters["snr"], signals.parameters["snr"])
    assert (found.merger_size, found.num_rejected) == (7168, 17)
    assert bool(found.attributes["simulated"])
    swapped = read_test_signals(path, SEGMENT, (0, 4), ifos=("L1", "H1"))
    np.testing.assert_array_equal(swapped.strain[:, 0], signals.strain[:, 1])


def test_sets_of_other_slides_are_added_to_a_file(tmp_path, signals) -> None:
    path = tmp_path / "signals.hdf5"
    write_test_signals(path, SEGMENT, (0, 0), signals)
    louder = dataclasses.replace(signals, strain=2 * signals.strain)
    write_test_signals(path, SEGMENT, (0, 4), louder)
    for shift, expected in ((0, signals), (4, louder)):
        found = read_test_signals(path, SEGMENT, (0, shift))
        np.testing.assert_array_equal(found.strain, expected.strain)
    with pytest.raises(SignalError, match="already exists"):
        write_test_signals(path, SEGMENT, (0, 0), signals)


def test_failed_write_keeps_the_old_file(tmp_path, signals) -> None:
    path = tmp_path / "signals.hdf5"
    write_test_signals(path, SEGMENT, (0, 0), signals)
    before = path.read_bytes()
    unwritable = dataclasses.replace(signals, attributes={"note": object()})
    with pytest.raises(TypeError):
        write_test_signals(path, SEGMENT, (0, 4), unwritable)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["signals.hdf5"]


def test_files_of_other_programs_are_sorted_by_time(tmp_path, signals) -> None:
    """Their times are floating-point seconds, in any order."""
    path = tmp_path / "signals.hdf5"
    write_test_signals(path, SEGMENT, (0, 0), signals)
    with h5py.File(path, "a") as file:
        group = file[f"test/{SEGMENT}/0,0"]
        del group["parameters/gps_time_ns"]
        group["parameters/gps_time"][:] = group["parameters/gps_time"][()][::-1]
    found = read_test_signals(path, SEGMENT, (0, 0))
    np.testing.assert_array_equal(found.strain, signals.strain[::-1])
    np.testing.assert_allclose(found.gps_time_ns, signals.gps_time_ns, atol=200)


@pytest.mark.parametrize("span", [None, (1262304000.0247, 1262304001.0)])
def test_strain_that_stays_in_its_file_is_the_same(tmp_path, signals, span) -> None:
    """Also for an unsorted file of another program, and when added to a piece."""
    path = tmp_path / "signals.hdf5"
    write_test_signals(path, SEGMENT, (0, 0), signals)
    with h5py.File(path, "a") as file:
        group = file[f"test/{SEGMENT}/0,0"]
        del group["parameters/gps_time_ns"]
        group["parameters/gps_time"][:] = group["parameters/gps_time"][()][[2, 0, 1]]
    read, kept = (
        read_test_signals(path, SEGMENT, (0, 0), ("L1", "H1"), span=span, stored=stored)
        for stored in (False, True)
    )
    assert len(kept) == (2 if span else 3) and kept.size == read.size
    for i in range(len(kept)):
        np.testing.assert_array_equal(kept.strain[i, :, 5:9], read.strain[i, :, 5:9])
    strain = np.random.default_rng(2).normal(scale=1e-23, size=(2, 9000))
    starts = signal_starts(read, 1262304000_000000000)
    one, other = (add_signals(strain, -7000, which, starts) for which in (read, kept))
    assert (one == other).all() and (one != strain.astype(np.float32)).any()


def test_a_missing_set_is_refused_with_the_existing_ones(tmp_path, signals) -> None:
    path = tmp_path / "signals.hdf5"
    write_test_signals(path, SEGMENT, (0, 0), signals)
    with pytest.raises(SignalError, match=r"expected signals .*/0,4 .*found .*/0,0"):
        read_test_signals(path, SEGMENT, (0, 4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda group: group.pop("L1"), "missing.*L1"),
        (lambda group: group["parameters"].pop("gps_time"), "missing.*gps_time"),
        (lambda group: group.attrs.pop("merger_size"), "missing.*merger_size"),
        (lambda group: group.attrs.modify("merger_size", 9000), "sample 9000"),
        (lambda group: group.attrs.modify("sample_rate", 4096), "found 4096 Hz"),
        (lambda group: group["H1"].write_direct(np.full((3, 8192), np.nan)), "finite"),
        (lambda group: [group[ifo].resize(2, 0) for ifo in ("H1", "L1")], "of 3 sign"),
        (lambda group: group["H1"].resize(2, 0), "differ in shape"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_damaged_set_is_refused(tmp_path, signals, damage, message, stored) -> None:
    path = tmp_path / "signals.hdf5"
    write_test_signals(path, SEGMENT, (0, 0), signals)
    with h5py.File(path, "a") as file:
        damage(file[f"test/{SEGMENT}/0,0"])
    with pytest.raises(SignalError, match=message) as caught:
        read_test_signals(path, SEGMENT, (0, 0), stored=stored)
    assert str(path) in str(caught.value)


def test_missing_files_and_other_formats_have_different_errors(tmp_path) -> None:
    with pytest.raises(SignalError, match="no such file"):
        read_test_signals(tmp_path / "none.hdf5", SEGMENT, (0, 0))
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(SignalError, match="expected an HDF5 file"):
        read_test_signals(tmp_path / "text.hdf5", SEGMENT, (0, 0))


def test_the_shipped_signals_are_those_that_the_demo_needs() -> None:
    path = importlib.resources.files("chirpwatch") / "data" / "test_signals.hdf5"
    assert path.stat().st_size < 2.5e6
    bank = read_test_signals(path, SEGMENT, (0, 0))
    since = bank.gps_time - 1262304000
    assert len(bank) >= 45 and since.min() >= 40 and since.max() < 1199
    assert np.diff(since).min() > 15
    assert bank.parameters["snr"].min() >= 5 and bank.parameters["snr"].max() <= 20
    equal = (bank.parameters["mass_1"] == 35) & (bank.parameters["mass_2"] == 35)
    assert 5 < equal.sum() < len(bank) - 5
    delays = np.stack([bank.parameters[f"delay_{ifo}"] for ifo in bank.ifos])
    assert (delays.min(0) == 0).all() and 0.005 < delays.max() < 0.0101
    assert str(bank.attributes["command"]).startswith("chirpwatch simulate signals")
