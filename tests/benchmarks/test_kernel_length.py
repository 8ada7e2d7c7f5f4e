"""The benchmark of the SNR that lies within a kernel, by its length."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.kernel_length import LENGTHS, measure, power_before, report
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.signals.waveforms import chirp_mass
from chirpwatch.train.networks.bank import Bank, BankSettings
from chirpwatch.train.networks.templates import whitening

GEOMETRY = Geometry(kernel_length=2.0)
SETTINGS = BankSettings(templates=2, candidates=2, runs=("O3",))
SOLAR_MASS_LENGTH = 4.925491e-6
"""G M_sun / c³, s."""


@pytest.fixture(scope="module")
def bank() -> Bank:
    masses = np.array([[8.0, 7.0], [36.0, 33.0]])
    half = np.full(2, 0.5)
    return Bank(SETTINGS, masses, np.zeros((2, 2)), np.zeros(2), half)


def frequency_before(masses: np.ndarray, length: float) -> float:
    """Frequency of a Newtonian inspiral a given time before the merger, Hz."""
    chirp_length = SOLAR_MASS_LENGTH * float(chirp_mass(*masses))
    return (256 / 5 * length) ** -0.375 * chirp_length**-0.625 / np.pi


@pytest.mark.parametrize("length", [0.5, 1.0, 2.0])
def test_light_mergers_lose_as_much_as_a_newtonian_inspiral(bank, length) -> None:
    masses = np.array([[5.0, 5.0]])
    power = power_before(masses, bank, GEOMETRY)[0]
    size = 8 * GEOMETRY.sample_rate
    frequencies = np.arange(1, size // 2 + 1) / 8
    density = whitening(SETTINGS, GEOMETRY, size)[1:] ** 2 * frequencies ** (-7 / 3)
    start = frequency_before(masses[0], length)
    expected = density[frequencies > start].sum() / density.sum()
    place = round(length * GEOMETRY.sample_rate)
    assert np.sqrt(power[place]) == pytest.approx(np.sqrt(expected), abs=0.03)


def test_the_buffer_holds_the_full_waveform(bank) -> None:
    masses = np.array([[5.0, 5.0]])
    long, other, short = (
        power_before(masses, bank, GEOMETRY, length)[0] for length in (32.0, 16.0, 4.0)
    )
    for power in (long, other, short):
        assert power[-1] == pytest.approx(1, abs=1e-4)
        assert (np.diff(power) >= 0).all()
    place = 2 * GEOMETRY.sample_rate
    assert other[place] == pytest.approx(long[place], abs=1e-3)
    # A buffer of 4 s lacks the first seconds in band: its fractions are too large.
    assert short[place] > long[place] + 0.02


def test_templates_recover_no_more_than_the_power_within_them(bank) -> None:
    pairs = ((5.0, 5.0), (35.0, 35.0))
    result = measure(GEOMETRY, bank, pairs)
    for one in result["mergers"]:
        assert list(one["within"]) == [str(length) for length in LENGTHS]
        assert one["own"] < one["within"]["1.145"] + 0.005
        assert one["bank"] < one["own"] + 0.05
    light, heavy = result["mergers"]
    assert light["in_band"] > 3 > 1 > heavy["in_band"]
    assert heavy["own"] > 0.98 > light["within"]["1.145"]
    longer = replace(bank, settings=replace(SETTINGS, before_length=2.5))
    more = measure(GEOMETRY, longer, pairs)["mergers"][0]["own"]
    assert more > light["own"] + 0.02
    lines = report(result).splitlines()
    assert lines[-2].startswith("| 5, 5 |") and lines[-1].startswith("| 35, 35 |")
