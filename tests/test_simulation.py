"""Simulated data through the commands: drift, lines, gaps, precession, full disks."""

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

import train.data
from chirpwatch.errors import ChirpwatchError, ConfigurationError, SignalError
from chirpwatch.signals import (
    read_polarizations,
    read_rejected,
    read_test_signals,
    shift_key,
)
from chirpwatch.strain import read_background
from train.data.background import (
    BackgroundSettings,
    BackgroundStream,
    draw_live_times,
    simulate_background,
)
from train.data.curves import curve_names, read_curve
from train.data.drift import DriftingSpectrum, DriftSettings, drifting_noise
from train.data.glitches import draw_snrs
from train.data.injections import project, project_polarizations, simulate_test_signals
from train.data.lines import Line, LineNoise
from train.data.noise import coloured_noise
from train.data.population import InjectionSettings, draw_masses, draw_redshifts
from train.data.signals import (
    face_on_waveforms,
    precessing_polarizations,
    sky,
)
from train.simulate_cli import simulate

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
@pytest.mark.parametrize("ifo", ["H1", "L1"])
def test_several_curves_are_there_for_each_detector_and_run(run_name, ifo) -> None:
    names = curve_names(run_name, ifo)
    assert names[0] == "measured" and len(names) >= 3
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
    """Against gwpy's PSD, over many minutes; and the drift is there to be seen."""
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
    assert np.sqrt(np.mean(whole**2)) == pytest.approx(1e-22, rel=0.01)
    # A jump of phase would be a step larger than the sine's steepest slope.
    assert np.abs(np.diff(whole)).max() < 1.01 * np.sqrt(2) * 1e-22 * 2 * np.pi / 20.4


def test_stream_puts_glitches_over_the_same_noise_across_pieces() -> None:
    settings = [BackgroundSettings(glitch_rate=rate) for rate in (0.0, 0.5)]
    quiet, loud = (BackgroundStream(64, "H1", RATE, one, [3]) for one in settings)
    difference = np.concatenate(list(loud.pieces())) - np.concatenate(
        list(quiet.pieces())
    )
    changed = np.flatnonzero(np.abs(difference) > 1e-24) / RATE
    assert len(loud.glitch_times) > 10
    for time in changed[:: RATE // 4]:
        assert np.abs(np.array(loud.glitch_times) - time).min() <= 2
    plain, _ = simulate_background(64, "O3", ("H1",), RATE, 3)
    still = np.concatenate(
        list(BackgroundStream(64, "H1", RATE, settings[0], [3]).pieces())
    )
    np.testing.assert_allclose(still, plain["H1"], atol=1e-10 * still.std())


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
def test_glitch_snrs_follow_the_power_law_asked_for(index) -> None:
    snrs = draw_snrs(40_000, (5.0, 100.0), index, np.random.default_rng(1))
    assert snrs.min() >= 5 and snrs.max() <= 100
    low, high, _ = (np.sum((snrs > a) & (snrs < a * 1.1)) for a in (8, 16, 32))
    # Bins as wide as their place: density times SNR.
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
    # One against the other: a wrong sign or phase of one of them would show.
    mixed, reference = (
        FrequencySeries(p + 0.7 * c, delta_f=1 / 16)
        for p, c in ([one.numpy() for one in spectra], [one.numpy() for one in theirs])
    )
    overlap, _ = match(mixed, reference, psd=psd, low_frequency_cutoff=32)
    assert overlap > 0.999


def test_both_waveforms_agree_where_nothing_spins() -> None:
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
    assert one.norm() == pytest.approx(float(other.norm()), rel=0.01)


def test_masses_of_the_source_are_redshifted_and_rejected_mergers_kept(
    tmp_path,
) -> None:
    out = tmp_path / "signals.hdf5"
    options = ["--source-frame", "--volume", 0.6, "--keep-rejected"]
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
        rejected = read_rejected(out, f"{GPS}-200", shift)
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


def test_redshifts_follow_the_volume_and_the_sources_clocks() -> None:
    torch.manual_seed(1)
    grid = np.linspace(0, 1, 1001)
    volume = Planck18.differential_comoving_volume(grid).value
    for weight, dilation in ((1, False), (1 / (1 + grid), True)):
        settings = InjectionSettings(snr_range=None, time_dilation=dilation)
        redshifts, _ = draw_redshifts(20_000, settings)
        expected = np.average(grid, weights=volume * weight)
        assert float(redshifts.mean()) == pytest.approx(expected, abs=0.005)


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


def test_command_writes_what_the_function_draws_and_a_span_is_read(tmp_path) -> None:
    out = tmp_path / "signals.hdf5"
    run("signals", out, "--duration", 200, "--seed", 5)
    expected = simulate_test_signals(GPS, 200, InjectionSettings(), 5, "test")
    found = read_test_signals(out, f"{GPS}-200", (0, 0))
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
    run("polarizations", out, "--count", 5, "--volume", 0.4, "--split", "valid")
    found = read_polarizations(out, "valid")
    assert found.plus.shape == (5, 8192) and found.num_rejected > 0
    assert found.parameters["snr"].min() >= 4
    near = np.argmin(found.parameters["distance"])
    assert np.abs(found.plus[near]).max() < 1e-20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masses", 50, 15], "the smaller first"),
        (["--snr", 20, 5], "SNR range"),
        (["--source-frame"], "source frame"),
        (["--length", 64], "expected room for a merger from 63.5 s"),
        (["--keep-rejected"], "--volume"),
        (["--time-dilation"], "--volume"),
    ],
)
def test_mergers_that_cannot_be_are_refused(tmp_path, options, message) -> None:
    out = tmp_path / "signals.hdf5"
    arguments = ["signals", out, "--duration", 60, *options]
    result = CliRunner().invoke(simulate, list(map(str, arguments)))
    assert isinstance(result.exception, ConfigurationError | SignalError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"glitch_snrs": (9.0, 5.0)},
        {"glitch_weights": {"cat": 1.0}},
        {"glitch_rate": -1},
    ],
)
def test_background_that_cannot_be_is_refused(options) -> None:
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
def test_full_disk_is_said_and_nothing_is_lost(tmp_path, command, small, large) -> None:
    out = tmp_path / "out.hdf5"
    run(command, out, *small)
    before = out.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "chirpwatch.cli", "simulate", command]
        + [str(one) for one in (out, *large)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600_000,) * 2),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 1, done.stderr
    assert "could not be written, and is as it was before" in done.stderr
    assert "Traceback" not in done.stderr
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_a_set_twice_and_a_file_that_is_none_are_refused(tmp_path) -> None:
    out = tmp_path / "signals.hdf5"
    run("signals", out, "--duration", 60)
    before = out.read_bytes()
    (tmp_path / "text").write_text("no")
    for path, message in ((out, "there already"), (tmp_path / "text", "an HDF5 file")):
        with pytest.raises(ChirpwatchError, match=message):
            run("signals", path, "--duration", 60)
    assert out.read_bytes() == before
    with h5py.File(out) as file:
        assert list(file[f"test/{GPS}-60"]) == [shift_key((0, 0))]


def test_public_names_are_there_and_noise_needs_no_torch() -> None:
    for name in train.data.__all__:
        assert callable(getattr(train.data, name))
    code = (
        "import sys\n"
        "from train.data import BackgroundSettings, BackgroundStream, drifting_noise\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
