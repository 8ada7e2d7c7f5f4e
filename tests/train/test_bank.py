"""The bank of templates: what it holds, and what it recovers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from pycbc.filter import match
from pycbc.types import FrequencySeries, TimeSeries
from pycbc.waveform import get_fd_waveform

from chirpwatch.commands.cli import cli
from chirpwatch.errors import (
    ConfigurationError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.cli import bank as command
from chirpwatch.train.data.signals.waveforms import chirp_mass
from chirpwatch.train.evaluation.bank_report import measure
from chirpwatch.train.networks.bank import (
    MERGER_LENGTH,
    OVERSAMPLING,
    Bank,
    BankSettings,
    read_bank,
    shipped_bank,
)
from chirpwatch.train.networks.placement import (
    JUDGEMENT,
    PLACEMENT,
    candidate_matches,
    choose,
    draw_mergers,
    place,
)
from chirpwatch.train.networks.templates import (
    SIGNAL_LENGTH,
    Grid,
    analytic,
    best_matches,
    whitened_spectra,
    whitening,
)

GEOMETRY = Geometry()
RATE = GEOMETRY.sample_rate
SETTINGS = BankSettings(templates=12, candidates=60, min_mass=10, max_mass=80)
WHOLE = replace(SETTINGS, before_length=2.5, after_length=0.5, max_frequency=1000)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return place(SETTINGS, GEOMETRY)


def whitened(masses: Any, spins: Any) -> np.ndarray:
    """Whole whitened series of 8 s, the merger at 7 s."""
    spectra = whitened_spectra(
        np.array(masses), np.array(spins), SETTINGS, GEOMETRY, 8.0
    )
    return np.fft.irfft(spectra)


def test_the_same_settings_give_the_same_bank(bank: Bank) -> None:
    assert place(SETTINGS, GEOMETRY).to_json() == bank.to_json()
    other = place(replace(SETTINGS, seed=2), GEOMETRY)
    assert other.digest != bank.digest
    assert not np.isin(other.masses, bank.masses).any()


def test_a_bank_survives_its_json(bank: Bank) -> None:
    again = Bank.from_json(bank.to_json())
    assert again.settings == bank.settings
    for name in ("masses", "spins", "shift", "share"):
        np.testing.assert_array_equal(getattr(again, name), getattr(bank, name))
    assert again.digest == bank.digest
    assert len(bank.digest) == 12


def test_templates_are_sorted_and_shares_sum_to_one(bank: Bank) -> None:
    assert bank.masses.shape == bank.spins.shape == (12, 2)
    assert (np.diff(chirp_mass(*bank.masses.T)) >= 0).all()
    assert (bank.masses[:, 0] >= bank.masses[:, 1]).all()
    assert bank.share.sum() == pytest.approx(1)
    # Each template is a merger of the population, and matches itself best where it
    # falls on its output.
    assert (bank.share >= 1 / SETTINGS.candidates / OVERSAMPLING).all()
    assert set(bank.shift) == {0.0, 0.5}


def test_mergers_are_those_of_the_population() -> None:
    settings = BankSettings(mass_flattening=0.0)
    masses, spins = draw_mergers(10_000, settings, PLACEMENT)
    assert masses.min() >= 5 and masses.max() <= 200 and np.abs(spins).max() <= 0.9
    # Below 20 solar masses: of the logarithm 0.376, else 0.077.
    share = (masses < 20).mean()
    assert share == pytest.approx(0.7 * 0.376 + 0.3 * 0.077, abs=0.01)
    others, _ = draw_mergers(10_000, settings, JUDGEMENT)
    assert not np.array_equal(masses, others)


def test_whitened_mergers_have_unit_power_and_merge_where_said() -> None:
    spectra = whitened_spectra(
        np.array([[60.0, 30.0], [12.0, 9.0]]), np.zeros((2, 2)), SETTINGS, GEOMETRY
    )
    assert spectra.dtype == np.complex64
    assert spectra.shape == (2, 2 * RATE + 1)
    assert not spectra[:, : round(4 * GEOMETRY.highpass)].any()
    series = analytic(spectra)
    np.testing.assert_allclose(series.real, np.fft.irfft(spectra), atol=1e-6)
    np.testing.assert_allclose((series.real**2).sum(1), 1, rtol=1e-4)
    peaks = np.abs(series).argmax(1) / RATE
    assert np.abs(peaks - MERGER_LENGTH).max() < 0.02


def test_templates_recover_their_own_mergers(bank: Bank) -> None:
    # All heavy enough to last less than 2.5 s.
    chosen = replace(WHOLE, templates=1)
    grid = Grid(chosen, GEOMETRY)
    for index in (-4, -1):
        alone = Bank(
            chosen, bank.masses[[index]], bank.spins[[index]], np.zeros(1), np.ones(1)
        )
        signals = grid.signals(alone.masses, alone.spins, SIGNAL_LENGTH)
        factor = best_matches(grid, grid.transform(signals), alone).mean()
        # Between two outputs a little is lost.
        assert 0.99 < factor < 1.002


def test_truncation_costs_what_another_template_may_win_back(bank: Bank) -> None:
    measured = measure(bank, GEOMETRY, 40)
    factors, own = measured.fitting, measured.own
    assert (own > 0.7).all() and (own < 1).all()
    assert factors.mean() < own.mean()
    assert (factors < own + 0.05).all()
    whole = Bank(WHOLE, bank.masses, bank.spins, bank.shift, bank.share)
    heavy = chirp_mass(*measured.masses.T) > 20
    assert (measure(whole, GEOMETRY, 40).own[heavy] > 0.998).all()


def test_fitting_factors_are_those_of_pycbc_with_truncated_templates(
    bank: Bank,
) -> None:
    masses, spins = draw_mergers(3, SETTINGS, JUDGEMENT)
    grid = Grid(SETTINGS, GEOMETRY)
    spectra = grid.transform(grid.signals(masses, spins, SIGNAL_LENGTH))
    # Over all times, as there.
    factors = best_matches(grid, spectra, bank).max(0)
    signals = [TimeSeries(row, 1 / RATE) for row in whitened(masses, spins)]
    expected = np.zeros(3)
    spectra = whitened_spectra(bank.masses, bank.spins, SETTINGS, GEOMETRY, 8.0)
    spectra[:, round(SETTINGS.max_frequency * 8) + 1 :] = 0
    merger = 7 * RATE
    for row in np.fft.irfft(spectra):
        row[: merger - round(SETTINGS.before_length * RATE)] = 0
        row[merger + round(SETTINGS.after_length * RATE) :] = 0
        template = TimeSeries(row, 1 / RATE)
        for i, signal in enumerate(signals):
            expected[i] = max(expected[i], match(template, signal)[0])
    np.testing.assert_allclose(factors, expected, atol=0.003)


@pytest.mark.parametrize(
    ("masses", "spins"),
    [((40.0, 30.0), (0.3, -0.2)), ((80.0, 20.0), (-0.5, 0.0))],
)
def test_whole_matches_are_those_of_pycbc_with_lal_waveforms(
    masses: tuple[float, float], spins: tuple[float, float]
) -> None:
    other, other_spins = (44.0, 28.0), (0.0, 0.0)
    alone = Bank(
        replace(WHOLE, templates=1),
        np.array([other]),
        np.array([other_spins]),
        np.zeros(1),
        np.ones(1),
    )
    grid = Grid(alone.settings, GEOMETRY)
    spectra = grid.signals(np.array([masses]), np.array([spins]), SIGNAL_LENGTH)
    factor = best_matches(grid, grid.transform(spectra), alone).max()
    size = 8 * RATE
    weight = whitening(SETTINGS, GEOMETRY, size)
    weight[weight == 0] = 1
    psd = FrequencySeries(weight**-2.0, 1 / 8)
    waves = [
        get_fd_waveform(
            approximant="IMRPhenomD",
            mass1=m1, mass2=m2, spin1z=s1, spin2z=s2,
            delta_f=1 / 8, f_lower=15, f_final=RATE / 2, distance=100,
        )[0]
        for (m1, m2), (s1, s2) in ((masses, spins), (other, other_spins))
    ]  # fmt: skip
    for wave in waves:
        wave.resize(size // 2 + 1)
    expected, _ = match(
        *waves, psd=psd, low_frequency_cutoff=32, high_frequency_cutoff=1000
    )
    assert factor == pytest.approx(expected, abs=0.005)


def test_placement_takes_what_adds_most() -> None:
    matches = np.eye(6, dtype=np.float32)
    matches[0, 1] = matches[1, 0] = matches[1, 2] = matches[2, 1] = 0.9
    matches[3, 4] = matches[4, 3] = 0.99
    everywhere = np.stack([matches] * OVERSAMPLING)
    chosen, _ = choose(everywhere, 6, 8.0)
    assert chosen.tolist()[:3] in ([3, 1, 5], [4, 1, 5])
    assert sorted(chosen) == list(range(6))
    assert choose(everywhere, 2, 8.0)[0].tolist() == chosen.tolist()[:2]


def test_placement_agrees_with_a_search_of_all_choices() -> None:
    rng = np.random.default_rng(6)
    matches = rng.random((OVERSAMPLING, 30, 30)).astype(np.float32)
    worth, best = matches.astype(np.float64) ** 3, np.zeros((OVERSAMPLING, 30))
    expected = []
    for _ in range(8):
        choices = [
            (np.maximum(best, np.stack(seen)).sum(), -template, -shift, seen)
            for template in set(range(30)) - {one for one, _ in expected}
            for shift in (0, 2)
            for seen in [
                [worth[(shift - i) % OVERSAMPLING, template] for i in range(4)]
            ]
        ]
        _, template, shift, seen = max(choices, key=lambda choice: choice[:3])
        expected.append((-template, -shift))
        best = np.maximum(best, np.stack(seen))
    chosen, shifts = choose(matches, 8, 3.0)
    assert list(zip(chosen.tolist(), shifts.tolist(), strict=True)) == expected


def test_neighbours_are_shifted_against_each_other() -> None:
    """What lies midway between two outputs, the template beside it sees."""
    grid = Grid(SETTINGS, GEOMETRY)
    masses, spins = draw_mergers(1, SETTINGS, PLACEMENT)
    twice = np.concatenate([masses, masses * 1.0001])
    spins = np.concatenate([spins, spins])
    _, shifts = choose(candidate_matches(grid, twice, spins), 2, 3.0)
    assert sorted(shifts) == [0, 2]


def test_matches_of_candidates_are_symmetric() -> None:
    grid = Grid(SETTINGS, GEOMETRY)
    matches = candidate_matches(grid, *draw_mergers(70, SETTINGS, PLACEMENT))
    for lag in range(OVERSAMPLING):
        np.testing.assert_allclose(
            matches[lag], matches[-lag % OVERSAMPLING].T, atol=1e-4
        )
    np.testing.assert_allclose(matches[0].diagonal(), 1, atol=1e-4)
    assert (matches[2].diagonal() < matches[1].diagonal()).all()
    assert matches.min() > 0
    assert matches.max() < 1.001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"templates": 0}, "templates of 1"),
        ({"candidates": 11}, "candidates between"),
        ({"min_mass": 4.0}, "min_mass"),
        ({"min_mass": 90.0}, "min_mass < max_mass"),
        ({"max_mass": float("nan")}, "a number as max_mass"),
        ({"max_spin": 1.0}, "max_spin"),
        ({"logarithmic_share": 1.1}, "logarithmic_share"),
        ({"before_length": 3.0}, "before_length"),
        ({"after_length": 0.0}, "after_length"),
        ({"runs": ()}, "runs"),
        ({"emphasis": 0.5}, "emphasis"),
        ({"seed": -1}, "seed"),
        ({"templates": 2.5}, "whole number as templates"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        replace(SETTINGS, **change)


def test_settings_that_contradict_the_geometry_are_refused() -> None:
    for change, words in (
        ({"max_frequency": 1024.0}, "max_frequency between the highpass of 32 Hz"),
        ({"max_frequency": 32.0}, "half the sample rate"),
        ({"after_length": 1e-4}, "after_length of 0.002 s"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            place(replace(SETTINGS, **change), GEOMETRY)
    with pytest.raises(StrainError, match="O5/H1"):
        place(replace(SETTINGS, runs=("O5",)), GEOMETRY)


def test_files_that_are_no_bank_are_refused(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "bank.json"
    with pytest.raises(ConfigurationError, match=r"bank\.json: expected a bank"):
        read_bank(path)
    content = json.loads(bank.to_json())
    for text, words in (
        ("{", "expected JSON"),
        ("[]", "expected the fields"),
        (json.dumps(content | {"extra": 1}), "expected the fields"),
        (json.dumps(content | {"settings": {}}), "settings and arrays"),
        (json.dumps(content | {"share": content["share"][1:]}), "share of shape"),
        (json.dumps(content | {"share": [1.0] * 12}), "1 together"),
        (json.dumps(content | {"masses": content["masses"][::-1]}), "sorted"),
        (
            json.dumps(content | {"masses": [row[::-1] for row in content["masses"]]}),
            "heavier mass first",
        ),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=words) as refusal:
            read_bank(path)
        assert str(refusal.value).startswith(str(path))


def test_the_command_writes_bank_table_and_figure(bank: Bank, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bank.json"
    arguments = ["train", "bank", str(out), "--templates", "12", "--candidates", "60"]
    arguments += ["--masses", "10", "80", "--signals", "100"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert read_bank(out).to_json() == bank.to_json()
    text = out.with_suffix(".md").read_text()
    assert bank.digest in text and "(bank.png)" in text
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line[:1] == "|"]
    assert len({len(row) for row in rows}) == 1
    whole, *bins = [[cell.strip() for cell in row] for row in rows[2:]]
    assert whole[:3] == ["all", "100", "12"]
    for column in (1, 2):
        assert sum(int(row[column]) for row in bins) == int(whole[column])
    assert bins[0][3] == "n/a"
    # No bank recovers much more than templates of the signals' own parameters.
    assert float(whole[3]) < float(whole[6]) + 0.01
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(list(out.parent.iterdir())) == 3


def test_the_command_has_the_settings_defaults() -> None:
    defaults = {one.name: one.default for one in command.params}
    assert isinstance(command, click.Command)
    settings = vars(BankSettings())
    assert defaults["masses"] == (settings["min_mass"], settings["max_mass"])
    assert defaults["before"] == settings["before_length"]
    assert defaults["after"] == settings["after_length"]
    for name in set(settings) & set(defaults):
        assert defaults[name] == settings[name], name
    assert len(set(settings) & set(defaults)) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bank.txt"], "ends with .json"),
        (["bank.json", "--candidates", "100"], "at least as many as --templates"),
        (["bank.json", "--masses", "3", "50"], "5<=x<=200"),
        (["bank.json", "--masses", "50", "50"], "min_mass < max_mass"),
        (["bank.json", "--max-frequency", "2000"], "half the sample rate"),
        (["bank.json", "--run", "O3", "--run", "O3"], "none of them twice"),
    ],
)
def test_the_command_refuses_what_cannot_be(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["train", "bank", *arguments])
    assert result.exit_code != 0
    assert words in result.output + str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_bank_is_that_of_the_defaults() -> None:
    bank = shipped_bank()
    assert len(bank.masses) == bank.settings.templates
    page = Path(__file__).parents[2] / "train" / "banks" / "shipped.md"
    assert bank.digest in page.read_text()
