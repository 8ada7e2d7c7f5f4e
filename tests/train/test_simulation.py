"""Simulated data through the commands: drift, lines, gaps, precession, full disks."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.cosmology import Planck18
from click.testing import CliRunner
from gwpy.timeseries import TimeSeries
from ml4gw.distributions import PowerLaw
from pycbc.filter import match, sigma
from pycbc.types import FrequencySeries
from pycbc.types import TimeSeries as PycbcTimeSeries
from pycbc.waveform import get_fd_waveform

import chirpwatch.train.data
from chirpwatch.background_file import read_background
from chirpwatch.errors import (
    ChirpwatchError,
    ConfigurationError,
    SignalError,
)
from chirpwatch.signals import (
    read_test_signals,
    shift_key,
)
from chirpwatch.train.data.noise.background import (
    BackgroundSettings,
    BackgroundStream,
    draw_live_times,
    simulate_background,
)
from chirpwatch.train.data.noise.curves import (
    curve_names,
    read_curve,
)
from chirpwatch.train.data.noise.drift import (
    DriftingSpectrum,
    DriftSettings,
    drifting_noise,
)
from chirpwatch.train.data.noise.glitches import draw_snrs
from chirpwatch.train.data.noise.lines import (
    Line,
    LineNoise,
)
from chirpwatch.train.data.noise.spectra import coloured_noise
from chirpwatch.train.data.signals.injections import (
    draw_times,
    merger_batches,
    project,
    project_polarizations,
    simulate_test_signals,
)
from chirpwatch.train.data.signals.population import (
    InjectionSettings,
    draw_masses,
    draw_redshifts,
)
from chirpwatch.train.data.signals.waveforms import (
    face_on_waveforms,
    precessing_polarizations,
    sky,
)
from chirpwatch.train.simulate_cli import simulate

RATE = 2048
GPS = 1262304000
STILL = DriftSettings(level=0, tilt=0, lines=0, mixing=0)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(
        simulate, list(map(str, arguments)), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("run_name", ["O3", "O4"])
@pytest.mark.parametrize("ifo", ["H1", "L1", "V1"])
def test_each_detector_and_run_has_several_curves(run_name, ifo) -> None:
    names = curve_names(run_name, ifo)
    measured = (run_name, ifo) != ("O4", "V1")
    assert (names[0] == "measured") == measured == ("measured" in names)
    assert len(names) >= (2 if ifo == "V1" else 3)
    assert (read_curve(run_name, ifo) == read_curve(run_name, ifo, name=names[0])).all()
    curves = [read_curve(run_name, ifo, name=name) for name in names]
    assert len({float(curve[200]) for curve in curves}) == len(names)
    for curve in curves:
        assert (curve > 1e-24).all() and (curve < 1e-18).all()


def test_noise_without_drift_is_coloured_noise() -> None:
    curve = read_curve("O3", "H1")
    size = 40 * RATE + 7
    still = np.concatenate(
        list(drifting_noise([curve], size, RATE, np.random.default_rng(1), STILL))
    )
    expected = coloured_noise(curve, size, RATE, np.random.default_rng(1))
    np.testing.assert_allclose(still, expected, atol=1e-10 * expected.std())


def test_spectrum_of_drifting_noise_is_the_mean_of_the_spectra() -> None:
    """Against gwpy's PSD over many minutes, in which the drift is visible."""
    curves = [read_curve("O3", "L1", name=name) for name in curve_names("O3", "L1")[1:]]
    settings = DriftSettings(correlation_length=60, level=0.2, tilt=0.1)
    rng = np.random.default_rng(2)
    spectra = DriftingSpectrum(curves, RATE, settings, rng.spawn(1)[0])
    drawn = np.stack([spectra.draw() for _ in range(65)])
    noise = list(
        drifting_noise(curves, 64 * 16 * RATE, RATE, np.random.default_rng(2), settings)
    )
    between = (drawn[:-1] ** 2 + drawn[:-1] * drawn[1:] + drawn[1:] ** 2) / 3
    found = TimeSeries(np.concatenate(noise), sample_rate=RATE).psd(2, method="welch")
    band = slice(160, 800)
    ratio = found.value[band] / between.mean(0)[band]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
    loudness = [
        np.median(TimeSeries(piece, sample_rate=RATE).psd(2).value[band] ** 0.5)
        for piece in noise
    ]
    expected = np.median(between[:, band], axis=1) ** 0.5
    assert np.corrcoef(loudness, expected)[0, 1] > 0.95
    assert np.std(np.log(expected)) > 0.05


def test_lines_have_their_height_and_join_without_a_step() -> None:
    asd = np.full(2049, 1e-23)
    line = Line(100.0, 10.0, wander=0.01, level_wander=0.0)
    lines = LineNoise([line], asd, RATE, np.random.default_rng(1))
    pieces = [lines.draw(size) for size in (5, 3 * RATE, 30 * RATE - 5, 7 * RATE)]
    whole = np.concatenate(pieces)
    again = LineNoise([line], asd, RATE, np.random.default_rng(1)).draw(len(whole))
    np.testing.assert_array_equal(whole, again)
    assert np.sqrt(np.mean(whole**2)) / 1e-22 == pytest.approx(1, rel=0.01)
    # A jump of phase would be a step larger than the sine's steepest slope.
    assert np.abs(np.diff(whole)).max() < 1.01 * np.sqrt(2) * 1e-22 * 2 * np.pi / 20.4


def test_line_heights_are_relative_to_the_floor_between_measured_lines() -> None:
    curve = read_curve("O3", "H1")
    lines = LineNoise(
        [Line(505.0, 10.0, level_wander=0.0)], curve, RATE, np.random.default_rng(1)
    )
    between = np.median(curve[1002:1019])  # 501 to 509 Hz
    assert curve[1010] > 100 * between  # a violin mode
    assert lines.draw(8 * RATE).std() / between == pytest.approx(10, rel=0.01)


def test_lines_of_a_lower_rate_are_at_their_frequencies() -> None:
    plain, lines = (
        np.concatenate(list(BackgroundStream(64, "H1", 1024, settings, [3]).pieces()))
        for settings in (BackgroundSettings(), BackgroundSettings(lines=True))
    )
    found = TimeSeries(lines - plain, sample_rate=1024).asd(8).value
    floor = read_curve("O3", "H1")
    assert found[round(410.3 * 8)] > 10 * np.median(floor[810:831])


def test_lines_above_half_the_rate_are_left_out() -> None:
    """They would alias: a line at 1000 Hz would appear at 24 Hz."""
    asd, low, high = np.full(1025, 1e-23), Line(100.0, 10.0), Line(1000.0, 10.0)
    one, both = (
        LineNoise(lines, asd, 1024, np.random.default_rng(1)).draw(16 * 1024)
        for lines in ([low], [low, high])
    )
    np.testing.assert_array_equal(one, both)


def test_lines_and_drift_are_added_on_request() -> None:
    def made(**options: object) -> np.ndarray:
        settings = BackgroundSettings(**options)
        return np.concatenate(
            list(BackgroundStream(64, "H1", RATE, settings, [3]).pieces())
        )

    plain, expected = made(), read_curve("O3", "H1")
    lines = TimeSeries(made(lines=True) - plain, sample_rate=RATE).asd(8).value
    # A calibration line, 20 times the floor at 1 Hz, is sqrt(8) higher at 1/8 Hz.
    assert lines[round(410.3 * 8)] > 10 * np.median(expected[810:831])
    assert lines[200 * 8] < 0.1 * expected[400]
    drifting = made(curves=("measured",), drift=DriftSettings(16, level=0.5))
    loudness = (drifting / plain.std()).reshape(4, -1).std(1)
    assert loudness.max() > 1.2 * loudness.min()


def test_stream_has_its_glitches_at_the_listed_times_across_pieces() -> None:
    settings = [
        BackgroundSettings(
            glitch_rate=rate, glitch_weights={"blip": 1}, glitch_snrs=(20, 30)
        )
        for rate in (0.0, 0.1)
    ]
    quiet, loud = (BackgroundStream(64, "H1", RATE, one, [5]) for one in settings)
    still, strain = (np.concatenate(list(one.pieces())) for one in (quiet, loud))
    times = np.array(loud.glitch_times)
    assert len(times) >= 3
    apart = [time for time in times if np.sum(np.abs(times - time) < 4) == 1]
    assert apart
    added = np.abs(strain - still)
    for time in apart:
        first = max(round((time - 2) * RATE), 0)
        peak = first + np.argmax(added[first : round((time + 2) * RATE)])
        assert peak / RATE == pytest.approx(time, abs=0.01)
    near = np.abs(np.arange(len(added))[:, None] / RATE - times).min(1) <= 2.001
    assert added[~near].max(initial=0) <= 1e-10 * still.std()
    plain, _ = simulate_background(64, "O3", ("H1",), RATE, 5)
    np.testing.assert_allclose(still, plain["H1"], atol=1e-10 * still.std())


def test_times_of_glitches_are_written_beside_the_strain(tmp_path) -> None:
    out = tmp_path / "background.hdf5"
    run("background", out, "--duration", 64, "--glitch-rate", 6, "--lines")
    read_background(out, "test", ("H1", "L1"), RATE)
    with h5py.File(out) as file:
        group = file[f"test/{GPS}-64"]
        times = group["glitches/L1"][:]
        assert len(times) and times.min() > GPS and times.max() < GPS + 64
        settings = json.loads(group.attrs["settings"])
    assert settings["glitch_rate"] == 0.1 and settings["lines"]


def test_a_single_expected_curve_can_be_chosen(tmp_path) -> None:
    out, name = tmp_path / "background.hdf5", "T1800545-low"
    run("background", out, "--duration", 16, "--curve-name", name)
    settings = BackgroundSettings(curves=(name,))
    seed = [1, GPS, *b"test"]
    expected = list(BackgroundStream(16, "H1", RATE, settings, seed).pieces())
    (segment,) = read_background(out, "test", ("H1",), RATE)
    np.testing.assert_array_equal(segment.strain["H1"][:], np.concatenate(expected))


def test_background_with_everything_is_written_in_gap_free_segments(tmp_path) -> None:
    out = tmp_path / "background.hdf5"
    arguments = ("background", out, "--duration", 600, "--drift", "--lines")
    run(*arguments, "--gap-rate", 30, "--gap-length", 20, "--min-length", 20)
    segments = read_background(out, "test", ("H1", "L1"), RATE)
    assert len(segments) >= 2
    ends = [one.t0_ns + round(one.duration * 1e9) for one in segments]
    starts = [one.t0_ns for one in segments[1:]]
    assert all(end < start for end, start in zip(ends, starts, strict=False))
    assert ends[-1] <= (GPS + 600) * 10**9
    for segment in segments:
        assert segment.simulated and segment.duration >= 20
        segment.read("L1", 0, segment.size)


def test_gaps_come_at_their_rate() -> None:
    spans = draw_live_times(4_000_000, 1 / 4000, 600, 1, np.random.default_rng(1))
    lengths = np.array([length for _, length in spans])
    assert lengths.mean() == pytest.approx(4000, rel=0.1)
    assert lengths.sum() / 4_000_000 == pytest.approx(4000 / 4600, rel=0.03)


@pytest.mark.parametrize("index", [-4.0, -1.0, 0.0])
def test_glitch_snrs_follow_the_chosen_power_law(index) -> None:
    snrs = draw_snrs(40_000, (5.0, 100.0), index, np.random.default_rng(1))
    assert snrs.min() >= 5 and snrs.max() <= 100
    low, high, _ = (np.sum((snrs > a) & (snrs < a * 1.1)) for a in (8, 16, 32))
    # Logarithmic bins: counts are the density times the SNR.
    assert low / high == pytest.approx(2.0 ** -(index + 1), rel=0.15)


def test_ml4gw_power_law_takes_the_sign_of_the_index() -> None:
    torch.manual_seed(1)
    medians = [
        PowerLaw(4, 100, index).sample((20_000,)).median().item() for index in (3, -3)
    ]
    assert medians == pytest.approx([84, 5.7], rel=0.02)


@pytest.fixture(scope="module")
def precessing() -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    masses = torch.tensor([[100.0, 80], [90, 25], [40, 30], [30, 12], [16, 14]])
    spins = torch.randn(5, 2, 3)
    spins = 0.9 * torch.rand(5, 2, 1) * spins / spins.norm(dim=-1, keepdim=True)
    angles = sky(5)
    parameters = {"mass_1": masses[:, 0], "mass_2": masses[:, 1], **angles}
    for i in (0, 1):
        for j, axis in enumerate("xyz"):
            parameters[f"spin_{i + 1}{axis}"] = spins[:, i, j]
    return parameters, *precessing_polarizations(parameters, 16 * RATE, 15 * RATE, RATE)


@pytest.mark.parametrize("row", range(5))
def test_precessing_waveforms_match_lalsimulation(precessing, row) -> None:
    parameters, *ours = precessing
    one = {name: float(column[row]) for name, column in parameters.items()}
    spins = {f"spin{i}{x}": one[f"spin_{i}{x}"] for i in "12" for x in "xyz"}
    theirs = get_fd_waveform(
        approximant="IMRPhenomPv2",
        mass1=one["mass_1"],
        mass2=one["mass_2"],
        inclination=one["inclination"],
        coa_phase=one["phase"],
        **spins,
        f_lower=20,
        f_ref=20,
        f_final=1024,
        delta_f=1 / 16,
        distance=100,
    )
    curve = read_curve("O3", "L1")
    frequencies = np.arange(0, 1024 + 1 / 16, 1 / 16)
    grid = np.interp(frequencies, np.arange(0, 1024.5, 0.5), curve)
    psd = FrequencySeries(grid**2, delta_f=1 / 16)
    spectra = [
        PycbcTimeSeries(wave[row].numpy(), delta_t=1 / RATE).to_frequencyseries()
        for wave in ours
    ]
    for found, expected in zip(spectra, theirs, strict=True):
        expected.resize(16 * RATE // 2 + 1)
        overlap, _ = match(found, expected, psd=psd, low_frequency_cutoff=32)
        assert overlap > 0.999
        size = sigma(found, psd, low_frequency_cutoff=32)
        expected_size = sigma(expected, psd, low_frequency_cutoff=32)
        assert size == pytest.approx(expected_size, rel=0.01)
    # Their product depends on the relative sign and phase of the polarizations.
    mixed, reference = (
        FrequencySeries(p + 0.7 * c, delta_f=1 / 16)
        for p, c in ([one.numpy() for one in spectra], [one.numpy() for one in theirs])
    )
    overlap, _ = match(mixed, reference, psd=psd, low_frequency_cutoff=32)
    assert overlap > 0.999


def test_both_waveforms_agree_without_spins() -> None:
    """IMRPhenomPv2 without spins, projected, is IMRPhenomD projected."""
    torch.manual_seed(3)
    masses, zeros, angles = torch.tensor([[40.0, 30.0]]), torch.zeros(1), sky(1)
    columns = {"mass_1": masses[:, 0], "mass_2": masses[:, 1], **angles}
    columns |= {f"spin_{i}{axis}": zeros for i in (1, 2) for axis in "xyz"}
    pair = precessing_polarizations(columns, 8192, 7168, RATE)
    one, _ = project_polarizations(*pair, angles, ("H1", "L1"), RATE)
    face_on = face_on_waveforms(*masses.T, zeros, zeros, 8192, 7168, RATE)
    other, _ = project(face_on, angles, ("H1", "L1"), RATE)
    for i in (0, 1):
        series = (
            PycbcTimeSeries(x[0, i].numpy(), delta_t=1 / RATE) for x in (one, other)
        )
        overlap, _ = match(*series, low_frequency_cutoff=32)
        assert overlap > 0.999
    assert float(one.norm() / other.norm()) == pytest.approx(1, rel=0.01)


def test_masses_of_the_source_are_redshifted_and_rejected_mergers_kept(
    tmp_path,
) -> None:
    out = tmp_path / "signals.hdf5"
    options = ["--source-frame", "--volume", 1, "--keep-rejected"]
    options += ["--masses", 20, 100, "--mass-distribution", "log-uniform"]
    options += ["--reference-share", 0, "--approximant", "IMRPhenomPv2"]
    options += ["--max-spin", 0.99]
    run(
        "signals",
        out,
        "--duration",
        200,
        "--shifts",
        "0,0",
        "--shifts",
        "0,4",
        *options,
    )
    sets = [read_test_signals(out, f"{GPS}-200", shift) for shift in ((0, 0), (0, 4))]
    assert not np.isin(sets[0].parameters["dec"], sets[1].parameters["dec"]).any()
    for shift, one in zip(((0, 0), (0, 4)), sets, strict=True):
        with h5py.File(out) as file:
            group = file[f"test/{GPS}-200/{shift_key(shift)}/rejected/parameters"]
            rejected = {name: column[()] for name, column in group.items()}
        assert len(rejected["snr"]) == one.num_rejected > 0
        assert rejected["snr"].max() < 4 <= one.parameters["snr"].min()
        for columns in (one.parameters, rejected):
            distance = Planck18.luminosity_distance(columns["redshift"])
            np.testing.assert_allclose(columns["distance"], distance.value, rtol=1e-6)
            np.testing.assert_allclose(
                columns["mass_1"],
                columns["source_mass_1"] * (1 + columns["redshift"]),
                rtol=1e-6,
            )
            spin = np.sqrt(sum(columns[f"spin_1{axis}"] ** 2 for axis in "xyz"))
            assert spin.max() <= 0.99 and np.abs(columns["spin_1x"]).max() > 0.05
        assert one.attributes["waveform"].startswith("IMRPhenomPv2")


def test_redshifts_follow_comoving_volume_and_time_dilation() -> None:
    torch.manual_seed(1)
    grid = np.linspace(0, 1, 1001)
    volume = Planck18.differential_comoving_volume(grid).value
    for weight, dilation in ((1, False), (1 / (1 + grid), True)):
        settings = InjectionSettings(snr_range=None, time_dilation=dilation)
        redshifts, _ = draw_redshifts(20_000, settings)
        expected = np.average(grid, weights=volume * weight)
        assert float(redshifts.mean()) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("limit", [1e-3, 1.0])
def test_redshifts_are_uniform_in_even_a_small_volume(limit) -> None:
    torch.manual_seed(1)
    settings = InjectionSettings(snr_range=None, max_redshift=limit)
    redshifts, _ = draw_redshifts(4000, settings)
    assert redshifts.min() > 0 and redshifts.max() <= limit
    below = Planck18.comoving_volume(redshifts.numpy()).value
    shares = np.sort(below / Planck18.comoving_volume(limit).value)
    # Kolmogorov-Smirnov test, which 99.9 % of correct samples pass.
    distance = np.abs(shares - (np.arange(4000) + 0.5) / 4000).max()
    assert distance < 1.95 / np.sqrt(4000)


def test_a_year_of_mergers_keeps_its_spacing() -> None:
    settings = InjectionSettings(spacing_length=24.3, jitter_length=0.0)
    n = 31_557_600 * 10 // 243 - 2
    found = draw_times(n, GPS, settings) - GPS * 10**9
    expected = 44 * 10**9 + 24_300_000_000 * np.arange(n)
    assert np.abs(found - expected).max() <= 10**9 / RATE / 2 + 1


def test_long_signals_are_generated_in_smaller_batches() -> None:
    def sizes(length: float) -> list[int]:
        settings = InjectionSettings(signal_length=length, first_length=100)
        batches = merger_batches(
            300, settings, lambda n, _: {"snr": torch.full((n,), 9.0)}
        )
        return [len(kept["snr"]) for kept, _ in batches]

    assert sizes(4) == [256, 44] and max(sizes(64)) == 16


def test_drawing_does_not_change_the_callers_random_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    simulate_test_signals(GPS, 60, InjectionSettings(), 5, "test")
    assert torch.equal(torch.rand(3), expected)


def test_a_fixed_pair_and_log_uniform_masses() -> None:
    torch.manual_seed(1)
    pair = InjectionSettings(reference_share=1.0, reference_masses=(20, 35))
    heavier, lighter = draw_masses(10, pair)
    assert set(heavier.tolist()) == {35.0} and set(lighter.tolist()) == {20.0}
    wide = InjectionSettings(
        min_mass=5, max_mass=100, mass_distribution="log_uniform", reference_share=0
    )
    masses = torch.stack(draw_masses(20_000, wide))
    assert float(masses.median()) == pytest.approx(np.sqrt(500), rel=0.03)


def test_sets_are_independent_in_one_call_and_in_several(tmp_path) -> None:
    strain, out = tmp_path / "background.hdf5", tmp_path / "signals.hdf5"
    for start, duration in ((1000, 60), (2000, 60), (3000, 16)):
        run("background", strain, "--start", start, "--duration", duration)
    told = run("signals", out, "--background", strain, "--shifts", "0,4")
    assert "3000-16" in told
    for start in (1000, 2000, 5000):
        run("signals", out, "--start", start, "--duration", 60)
    with h5py.File(out) as file:
        assert sorted(file["test"]) == ["1000-60", "2000-60", "5000-60"]
    sets = [("1000-60", (0, 4)), ("2000-60", (0, 4))]
    sets += [(f"{start}-60", (0, 0)) for start in (1000, 2000, 5000)]
    angles = [float(read_test_signals(out, *one).parameters["dec"][0]) for one in sets]
    assert len(set(angles)) == len(sets)


def test_a_file_without_room_for_a_merger_is_refused(tmp_path) -> None:
    strain, out = tmp_path / "background.hdf5", tmp_path / "signals.hdf5"
    run("background", strain, "--duration", 16)
    with pytest.raises(SignalError, match="found at most 16 s"):
        run("signals", out, "--background", strain)
    assert not out.exists()


def test_command_writes_the_functions_draws_and_a_span_can_be_read(tmp_path) -> None:
    out = tmp_path / "signals.hdf5"
    run("signals", out, "--duration", 200, "--seed", 5)
    found = read_test_signals(out, f"{GPS}-200", (0, 0))
    seed = int(found.attributes["seed"])
    assert json.loads(found.attributes["settings"])["spacing_length"] == 24
    expected = simulate_test_signals(GPS, 200, InjectionSettings(), seed, "test")
    np.testing.assert_array_equal(found.strain, expected.strain)
    np.testing.assert_array_equal(found.gps_time_ns, expected.gps_time_ns)
    times = found.gps_time
    part = read_test_signals(
        out, f"{GPS}-200", (0, 0), span=(times[1] - 0.1, times[3] - 0.1)
    )
    np.testing.assert_array_equal(part.strain, expected.strain[1:3])
    assert len(read_test_signals(out, f"{GPS}-200", (0, 0), span=(5, 6))) == 0


def test_polarizations_may_be_drawn_in_volume(tmp_path) -> None:
    out = tmp_path / "signals.hdf5"
    run("polarizations", out, "--count", 8, "--volume", 0.8, "--split", "valid")
    with h5py.File(out) as file:
        group = file["valid"]
        plus, cross = (group[f"polarizations/{name}"][()] for name in ("plus", "cross"))
        columns = {name: data[()] for name, data in group["parameters"].items()}
        assert group.attrs["num_rejected"] > 0
    assert plus.shape == cross.shape == (8, 8192)
    assert columns["snr"].min() >= 4
    near = np.argmin(columns["distance"])
    assert np.abs(plus[near]).max() < 1e-20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masses", 50, 15], "smaller first; found min_mass 50.0, max_mass 15.0"),
        (["--snr", 20, 5], "SNR range"),
        (["--source-frame"], "source frame"),
        (["--length", 64], "with jitter, at least 63.5 s after"),
        (["--keep-rejected"], "--volume"),
        (["--time-dilation"], "--volume"),
        (["--snr", 5, 20, "--volume", 1], "--snr: expected no --volume"),
        (["--split", "train"], "--split: expected --background too"),
        (["--background", "x"], "--duration: expected no --background"),
    ],
)
def test_impossible_mergers_are_refused(tmp_path, options, message) -> None:
    out = tmp_path / "signals.hdf5"
    arguments = ["signals", out, "--duration", 60, *options]
    result = CliRunner().invoke(simulate, list(map(str, arguments)))
    assert isinstance(result.exception, ConfigurationError | SignalError)
    assert message in str(result.exception)
    assert len(str(result.exception)) < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drift-length", 60], "--drift-length: expected --drift too"),
        (["--min-length", 64], "--min-length: expected a --gap-rate"),
        (["--gap-length", 60], "--gap-length: expected a --gap-rate"),
        (["--glitch-family", "blip"], "--glitch-family: expected a --glitch-rate"),
        (["--curve-name", "measured", "--curve-name", "x"], "expected one curve"),
        (["--curve-name", "x"], "expected the noise curve O3/expected/H1/x"),
    ],
)
def test_options_of_no_effect_and_unknown_curves_are_refused(
    tmp_path, options, message
) -> None:
    arguments = ["background", tmp_path / "out.hdf5", "--duration", 8, *options]
    with pytest.raises(ChirpwatchError, match=message):
        run(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"glitch_snrs": (9.0, 5.0)},
        {"glitch_weights": {"cat": 1.0}},
        {"glitch_rate": -1},
    ],
)
def test_impossible_background_settings_are_refused(options) -> None:
    with pytest.raises(ConfigurationError, match="background: expected"):
        BackgroundSettings(**options)


@pytest.mark.parametrize(
    ("command", "small", "large"),
    [
        ("background", ["--duration", 8], ["--start", 1000, "--duration", 300]),
        (
            "signals",
            ["--duration", 60],
            ["--start", 1000, "--duration", 900],
        ),
    ],
)
def test_full_disk_is_reported_and_nothing_is_lost(
    tmp_path, command, small, large
) -> None:
    out = tmp_path / "out.hdf5"
    run(command, out, *small)
    before = out.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "chirpwatch", "simulate", command]
        + [str(one) for one in (out, *large)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600_000,) * 2),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1, done.stderr
    assert "could not be written, and is unchanged" in done.stderr
    assert "Traceback" not in done.stderr
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_a_repeated_set_and_a_file_that_is_not_hdf5_are_refused(tmp_path) -> None:
    out = tmp_path / "signals.hdf5"
    run("signals", out, "--duration", 60)
    before = out.read_bytes()
    (tmp_path / "text").write_text("no")
    for path, message in ((out, "already exists"), (tmp_path / "text", "an HDF5 file")):
        with pytest.raises(ChirpwatchError, match=message):
            run("signals", path, "--duration", 60)
    assert out.read_bytes() == before
    with h5py.File(out) as file:
        assert list(file[f"test/{GPS}-60"]) == [shift_key((0, 0))]


def test_public_names_exist_and_noise_needs_no_torch() -> None:
    for name in chirpwatch.train.data.__all__:
        assert callable(getattr(chirpwatch.train.data, name))
    code = (
        "import sys\n"
        "from chirpwatch.train.data import BackgroundSettings, BackgroundStream\n"
        "from chirpwatch.train.data import drifting_noise\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
