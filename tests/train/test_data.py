"""Simulated strain: noise, whitening, glitches, mergers, against independent codes."""

import subprocess
import sys

import h5py
import lal
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gwpy.timeseries import TimeSeries
from hypothesis import given, settings
from hypothesis import strategies as st
from ml4gw.gw import compute_antenna_responses, get_ifo_geometry
from ml4gw.transforms import SpectralDensity, Whiten
from pycbc.filter import match, sigma
from pycbc.types import FrequencySeries
from pycbc.types import TimeSeries as PycbcTimeSeries
from pycbc.waveform import get_fd_waveform

from chirpwatch.errors import (
    ConfigurationError,
    SignalError,
    StrainError,
)
from chirpwatch.train.data import whitening
from chirpwatch.train.data.noise.background import simulate_background
from chirpwatch.train.data.noise.curves import (
    read_curve,
    regrid,
)
from chirpwatch.train.data.noise.glitches import (
    SHAPES,
    draw_glitch,
    scale_to_snr,
)
from chirpwatch.train.data.noise.sources import (
    CurveVariation,
    SimulatedStretches,
)
from chirpwatch.train.data.noise.spectra import coloured_noise
from chirpwatch.train.data.signals.injections import (
    InjectionSettings,
    draw_mergers,
    draw_polarizations,
    network_snr,
    project,
    rejection_batches,
    simulate_test_signals,
)
from chirpwatch.train.data.signals.waveforms import (
    antenna_amplitudes,
    arrival_delays,
    face_on_waveforms,
    sky,
)
from chirpwatch.train.simulate_cli import simulate

RATE = 2048
IFOS = ("H1", "L1")
GPS = 1262304000


@pytest.fixture(scope="module")
def strain() -> np.ndarray:
    return coloured_noise(
        read_curve("O3", "L1"), 300 * RATE, RATE, np.random.default_rng(1)
    )


@pytest.fixture(scope="module")
def waveforms() -> torch.Tensor:
    torch.manual_seed(1)
    masses = torch.tensor([[35.0, 35.0], [50.0, 15.0], [20.0, 10.0]])
    zeros = torch.zeros(3)
    return face_on_waveforms(*masses.T, zeros, zeros, 8192, 7168, RATE)


def test_strain_is_simulated_and_signals_are_read_without_torch() -> None:
    """The demo must run without torch installed."""
    code = (
        "import sys, chirpwatch.signals\n"
        "from chirpwatch.train.data.noise.background import simulate_background\n"
        "simulate_background(8, 'O3', ('H1', 'L1'), 2048, 1, 0.2)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_curves_of_runs_and_detectors_exist_and_differ() -> None:
    curves = [read_curve(run, ifo) for run in ("O3", "O4") for ifo in IFOS]
    for curve in curves:
        assert (
            curve.shape == (2049,) and (curve > 1e-24).all() and (curve < 1e-18).all()
        )
    assert len({float(curve[400]) for curve in curves}) == 4
    with pytest.raises(
        StrainError, match=r"expected the noise curve O9/H1, found .*O3/H1"
    ):
        read_curve("O9", "H1")


def test_curve_at_a_lower_rate_is_the_same_curve_truncated() -> None:
    whole, cut = (read_curve("O3", "H1", sample_rate=rate) for rate in (RATE, 1024))
    np.testing.assert_array_equal(cut, whole[:1025])


def test_rate_above_the_curves_range_is_refused() -> None:
    message = r"sample rate of at most 2048 Hz, since .* end at 1024 Hz; found .*4096"
    for make in (
        lambda: read_curve("O3", "H1", sample_rate=4096),
        lambda: simulate_background(8, "O3", IFOS, 4096, 1),
        lambda: SimulatedStretches("H1", ("O3",), 4096),
        lambda: InjectionSettings(sample_rate=4096),
        lambda: network_snr(torch.zeros(1, 2, 8), "O3", IFOS, 4096, 32.0),
    ):
        with pytest.raises(ConfigurationError, match=message):
            make()


def test_mergers_are_as_loud_at_a_lower_rate() -> None:
    """Two of 100 solar masses each have no power above 512 Hz."""
    kind = {"reference_share": 1.0, "reference_masses": (100.0, 100.0)}
    distances = []
    for rate in (RATE, 1024):
        torch.manual_seed(1)
        settings = InjectionSettings(sample_rate=rate, snr_range=(10, 10), **kind)
        distances.append(draw_mergers(4, settings)["distance"])
    np.testing.assert_allclose(*distances, rtol=0.01)


def test_regridding_keeps_the_power_of_a_narrow_line() -> None:
    frequencies = np.arange(15, 1600, 1 / 32)
    asd = np.ones_like(frequencies)
    asd[np.isclose(frequencies, 60)] = 100
    grid = regrid(frequencies, asd)
    assert grid[120] ** 2 == pytest.approx((15 + 100**2) / 16)
    assert grid[0] == grid[2048] == 1


def test_noise_has_the_spectrum_of_its_curve(strain) -> None:
    curve = read_curve("O3", "L1")
    found = TimeSeries(strain, sample_rate=RATE).psd(2, method="median").value
    ratio = np.sqrt(found[64:2000]) / curve[64:2000]
    assert np.median(ratio) == pytest.approx(1, abs=0.01)
    # Lines have the filter's resolution; elsewhere the scatter is statistical.
    assert np.percentile(ratio, [3, 97]) == pytest.approx([1, 1], abs=0.15)


def test_noise_of_a_lower_rate_has_the_curve_s_lines_at_their_frequencies() -> None:
    curve = read_curve("O3", "H1")
    modes = slice(980, 1022)  # violin modes, 490 to 511 Hz
    sources = [
        SimulatedStretches("H1", ("O3",), 1024),
        SimulatedStretches("H1", ("O3",), 1024, CurveVariation(spread=1e-9)),
    ]
    drawn = [source.draw(64 * 1024, np.random.default_rng(1))[0] for source in sources]
    made, _ = simulate_background(64, "O3", ["H1"], 1024, 1)
    for strain in (*drawn, made["H1"]):
        found = TimeSeries(strain, sample_rate=1024).psd(2, method="median").value
        assert abs(int(found[modes].argmax()) - int(curve[modes].argmax())) <= 1
        ratio = np.sqrt(found[64:800]) / curve[64:800]
        assert np.median(ratio) == pytest.approx(1, abs=0.02)


def test_noise_of_two_seeds_and_detectors_is_independent() -> None:
    one, _ = simulate_background(8, "O3", IFOS, RATE, 1)
    two, _ = simulate_background(8, "O3", IFOS, RATE, 2)
    again, _ = simulate_background(8, "O3", IFOS, RATE, 1)
    np.testing.assert_array_equal(one["H1"], again["H1"])
    for other in (one["L1"], two["H1"]):
        assert abs(np.corrcoef(one["H1"], other)[0, 1]) < 0.2


@pytest.mark.parametrize("segments", [7, 8, 63])
def test_psd_and_whitening_agree_with_ml4gw(strain, segments) -> None:
    piece = strain[: (segments + 1) * RATE]
    spectra = whitening.periodograms(piece, 2 * RATE, RATE)
    assert len(spectra) == segments
    psd = whitening.median_psd(spectra)
    expected = SpectralDensity(RATE, 2, average="median")(torch.from_numpy(piece)[None])
    np.testing.assert_allclose(psd[64:-1], expected[0, 64:-1], rtol=1e-4)
    if segments % 2 == 0:
        return  # A filter needs an odd number of periodograms.
    taps = whitening.whitening_taps(psd, segments, RATE, RATE, 32)
    # Equal to the PSD's segment length, so that ml4gw does not interpolate.
    data = strain[100 * RATE : 102 * RATE]
    whitened = whitening.whiten(data, taps)
    reference = Whiten(1, RATE, 32)(torch.from_numpy(data)[None, None], expected[None])
    # ml4gw does not correct the excess variance from few periodograms.
    reference /= whitening.whitened_variance(segments, RATE, 2 * RATE) ** 0.5
    assert whitened.shape == reference[0, 0].shape
    np.testing.assert_allclose(whitened, reference[0, 0], atol=0.005 * whitened.std())


@pytest.mark.parametrize("segments", [7, 15, 63])
def test_noise_is_whitened_to_unit_variance_by_few_periodograms(segments) -> None:
    """The closed form against simulated white noise of unit variance."""

    def filtered_variance(psd) -> float:
        taps = whitening.whitening_taps(psd, segments, RATE, RATE, 32)
        return float((taps**2).sum())

    rng = np.random.default_rng(segments)
    simulated = []
    for _ in range(200):
        noise = rng.standard_normal((segments + 1) * RATE)
        spectra = whitening.periodograms(noise, 2 * RATE, RATE)
        simulated.append(filtered_variance(whitening.median_psd(spectra)))
    # A filter from the true PSD, without the factor, only loses the highpass's part.
    true = filtered_variance(np.full(2 * RATE // 2 + 1, 2 / RATE))
    expected = true * whitening.whitened_variance(segments, RATE, 2 * RATE)
    error = np.std(simulated) / len(simulated) ** 0.5
    print(f"{np.mean(simulated) / expected:.4f} +- {error / expected:.4f}")
    assert expected == pytest.approx(1 - 32 / (RATE / 2), abs=0.001)
    assert error < 0.002
    assert np.mean(simulated) == pytest.approx(expected, abs=4 * error)


def test_zero_phase_response_is_the_transform_of_the_taps(strain) -> None:
    spectra = whitening.periodograms(strain, 2 * RATE, RATE)
    psd = whitening.median_psd(spectra)
    taps = whitening.whitening_taps(psd, len(spectra), RATE, RATE, 32)
    data = np.zeros(3 * RATE)
    data[2500:2600] = np.hanning(100)
    response = whitening.zero_phase_response(taps, len(data))
    found = np.fft.irfft(np.fft.rfft(data) * response)[RATE // 2 : -RATE // 2]
    np.testing.assert_allclose(
        found, whitening.whiten(data, taps), atol=1e-6 * np.abs(found).max()
    )


@pytest.mark.parametrize("family", SHAPES)
def test_glitches_have_the_requested_snr(family) -> None:
    rng = np.random.default_rng(1)
    times = (np.arange(4 * RATE) - 2 * RATE) / RATE
    asd = read_curve("O3", "H1")
    for _ in range(5):
        shape = SHAPES[family](times, rng)
        assert np.isfinite(shape).all() and 0.5 < np.abs(shape).max() <= 1
        glitch = scale_to_snr(shape, asd, 12.0, RATE, 32.0)
        grid = np.interp(np.arange(0, 1024.25, 0.25), np.arange(0, 1024.5, 0.5), asd)
        psd = FrequencySeries(grid**2, delta_f=0.25)
        series = PycbcTimeSeries(glitch, delta_t=1 / RATE)
        found = sigma(series, psd, low_frequency_cutoff=32, high_frequency_cutoff=1023)
        assert found == pytest.approx(12, rel=0.01)


def test_background_has_its_glitches_at_the_listed_times() -> None:
    quiet, none = simulate_background(60, "O3", IFOS, RATE, 3)
    loud, times = simulate_background(60, "O3", IFOS, RATE, 3, glitch_rate=0.1)
    assert none == {"H1": [], "L1": []}
    for ifo in IFOS:
        assert times[ifo] and times["H1"] != times["L1"]
        changed = np.flatnonzero(loud[ifo] != quiet[ifo]) / RATE
        for time in changed[:: RATE // 4]:
            assert np.abs(np.array(times[ifo]) - time).min() <= 2
    assert draw_glitch(100, 50, RATE, np.random.default_rng(1)).shape == (100,)


def test_waveforms_match_lalsimulation_over_masses_and_spins() -> None:
    rng = np.random.default_rng(3)
    masses = np.sort(np.exp(rng.uniform(np.log(5), np.log(100), (12, 2))))[:, ::-1]
    spins = rng.uniform(-0.9, 0.9, (12, 2))
    size = 16 * RATE  # 5 and 5 solar masses last 6 s from 32 Hz on
    columns = torch.from_numpy(np.hstack([masses, spins])).float()
    ours = face_on_waveforms(*columns.T, size, size - RATE // 2, RATE)
    grid = np.arange(0, RATE / 2 + 1 / 16, 1 / 16)
    curve = np.interp(grid, np.arange(0, 1024.5, 0.5), read_curve("O3", "L1"))
    psd = FrequencySeries(curve**2, delta_f=1 / 16)
    for wave, (mass_1, mass_2), (spin_1, spin_2) in zip(
        ours, masses, spins, strict=True
    ):
        plus, _ = get_fd_waveform(
            approximant="IMRPhenomD",
            mass1=mass_1,
            mass2=mass_2,
            spin1z=spin_1,
            spin2z=spin_2,
            delta_f=1 / 16,
            f_lower=20,
            f_final=1024,
            distance=100,
        )
        plus.resize(len(grid))
        series = PycbcTimeSeries(wave.numpy(), delta_t=1 / RATE).to_frequencyseries()
        overlap, _ = match(series, plus, psd=psd, low_frequency_cutoff=32)
        assert overlap > 0.999, (mass_1, mass_2, spin_1, spin_2)
        sizes = [sigma(one, psd, low_frequency_cutoff=32) for one in (series, plus)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_mergers_are_at_the_requested_sample_and_nothing_wraps(waveforms) -> None:
    analytic = torch.fft.fft(waveforms)
    analytic[:, 4097:] = 0
    envelope = torch.fft.ifft(analytic).abs()
    assert (envelope.argmax(-1) - 7168).abs().max() <= 2
    ringdown = waveforms[:, 7168 + 400 :].abs().amax(-1)
    assert (ringdown < 1e-3 * waveforms.abs().amax(-1)).all()
    assert (waveforms[:, 0] == 0).all()


def test_delays_and_antenna_responses_agree_with_lal() -> None:
    torch.manual_seed(2)
    angles = sky(20)
    ifos = (*IFOS, "V1")
    delays = arrival_delays(angles, ifos)
    amplitudes = antenna_amplitudes(angles | {"phase": torch.zeros(20)}, ifos)
    gmst = lal.GreenwichMeanSiderealTime(lal.LIGOTimeGPS(GPS))
    for i, ifo in enumerate(ifos):
        detector = lal.cached_detector_by_prefix[ifo]
        for n in range(20):
            dec, psi = float(angles["dec"][n]), float(angles["psi"][n])
            ra = float(angles["phi"][n]) + gmst
            delay = lal.TimeDelayFromEarthCenter(detector.location, ra, dec, GPS)
            assert float(delays[n, i]) == pytest.approx(delay, abs=1e-6)
            plus, cross = lal.ComputeDetAMResponse(
                detector.response, ra, dec, psi, gmst
            )
            cosine = np.cos(float(angles["inclination"][n]))
            expected = plus * (1 + cosine**2) / 2 - 1j * cross * cosine
            assert complex(amplitudes[n, i]) == pytest.approx(expected, abs=1e-5)
    assert (delays[:, 0] - delays[:, 1]).abs().max() < 0.0101


def test_projected_mergers_carry_the_delay_between_the_sites(waveforms) -> None:
    """A merger's arrival times differ by the light travel time, up to 10 ms."""
    torch.manual_seed(3)
    angles = sky(64)
    strain, delays = project(waveforms[:1].expand(64, -1), angles, IFOS, RATE)
    assert (delays.amin(1) == 0).all() and 0.008 < delays.max() < 0.0101
    # Envelopes do not depend on the detectors' phases.
    spectrum = torch.fft.fft(strain)
    spectrum[..., 4097:] = 0
    peaks = torch.fft.ifft(spectrum).abs().argmax(-1)
    expected = 7168 + delays * RATE
    assert (peaks - expected).abs().max() < 3


def test_projection_does_not_wrap_around() -> None:
    """An impulse at the last sample is delayed beyond the data, not to their start."""
    impulse = torch.zeros(32, 1024, dtype=torch.float64)
    impulse[:, -1] = 1
    torch.manual_seed(4)
    strain, delays = project(impulse, sky(32), IFOS, RATE)
    late = delays > 0.004
    assert late.any()
    assert strain[late][:, :512].abs().max() < 1e-2


def test_network_snr_agrees_with_pycbc() -> None:
    torch.manual_seed(5)
    mergers = draw_mergers(6, InjectionSettings())
    grid = np.arange(0, 1024.25, 0.25)
    squares = np.zeros(6)
    for i, ifo in enumerate(IFOS):
        curve = np.interp(grid, np.arange(0, 1024.5, 0.5), read_curve("O3", ifo))
        psd = FrequencySeries(curve**2, delta_f=0.25)
        for n in range(6):
            series = PycbcTimeSeries(mergers["strain"][n, i].numpy(), delta_t=1 / RATE)
            squares[n] += sigma(series, psd, low_frequency_cutoff=32) ** 2
    np.testing.assert_allclose(mergers["snr"], np.sqrt(squares), rtol=0.01)
    again = network_snr(mergers["strain"], "O3", IFOS, RATE, 32.0)
    np.testing.assert_allclose(mergers["snr"], again, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=60).filter(any),
    st.integers(1, 70),
    st.data(),
)
def test_rejected_draws_are_counted_exactly(loud, batch, data) -> None:
    """Draws after the last accepted one, in the last batch, are not counted."""
    wanted = data.draw(st.integers(1, sum(loud)))
    stream = iter(loud + [True] * 200)
    position = iter(range(1000))

    def draw(n: int) -> dict[str, torch.Tensor]:
        snrs = [8.0 if next(stream) else 2.0 for _ in range(n)]
        index = [next(position) for _ in range(n)]
        return {"snr": torch.tensor(snrs), "index": torch.tensor(index)}

    batches = list(rejection_batches(draw, wanted, 4.0, batch))
    accepted, rejected = (
        torch.cat([columns["index"] for columns in kind]).tolist()
        for kind in zip(*batches, strict=True)
    )
    expected = [i for i, is_loud in enumerate(loud) if is_loud][:wanted]
    assert accepted == expected
    assert rejected == [i for i in range(expected[-1]) if i not in expected]


def test_polarizations_give_the_same_strain_as_a_projection() -> None:
    torch.manual_seed(6)
    waves = draw_polarizations(4, InjectionSettings())
    angles = {
        name: waves[name] for name in ("dec", "psi", "phi", "inclination", "phase")
    }
    masses = [waves[f"mass_{i}"] for i in (1, 2)]
    zeros = torch.zeros(4)
    face_on = face_on_waveforms(*masses, zeros, zeros, 8192, 7168, RATE)
    strain, _ = project(face_on, angles, ("H1",), RATE)
    tensors, _ = get_ifo_geometry("H1")
    responses = compute_antenna_responses(
        torch.pi / 2 - angles["dec"],
        angles["psi"],
        angles["phi"],
        tensors.double(),
        ["plus", "cross"],
    )
    plus, cross = (waves[name].numpy() for name in ("plus", "cross"))
    expected = responses[:, 0].numpy() * plus + responses[:, 1].numpy() * cross
    # At the ends the quadrature depends on the transform's padding.
    inner = slice(256, -256)
    np.testing.assert_allclose(
        strain[:, 0, inner], expected[:, inner], atol=1e-3 * np.abs(expected).max()
    )


def test_volume_draws_have_consistent_distances_and_are_rejected_below_snr_4() -> None:
    from astropy.cosmology import Planck18

    kind = InjectionSettings(snr_range=None, max_redshift=1.0)
    signals = simulate_test_signals(GPS, 200, kind, 1, "test")
    assert signals.num_rejected > 0
    assert signals.parameters["snr"].min() >= 4
    np.testing.assert_allclose(
        signals.parameters["distance"],
        Planck18.luminosity_distance(signals.parameters["redshift"]).to_value("Mpc"),
        rtol=1e-6,
    )


def test_injections_are_placed_on_whole_samples_inside_the_segment() -> None:
    signals = simulate_test_signals(GPS, 120, InjectionSettings(), 1, "test")
    assert len(signals) == 3
    since = signals.gps_time_ns - GPS * 10**9
    samples = since * RATE / 1e9
    np.testing.assert_allclose(samples, np.round(samples), atol=1e-5)
    assert np.round(samples).min() >= signals.merger_size
    assert np.round(samples).max() + signals.size - signals.merger_size <= 120 * RATE
    with pytest.raises(SignalError, match="expected the first merger"):
        simulate_test_signals(GPS, 20, InjectionSettings(), 1, "test")


def test_segments_and_splits_are_independent(tmp_path) -> None:
    out = tmp_path / "background.hdf5"
    for start, split in ((1000, "train"), (2000, "train"), (1000, "valid")):
        arguments = ["--start", start, "--split", split, "--duration", 8]
        CliRunner().invoke(
            simulate,
            ["background", str(out), *map(str, arguments)],
            catch_exceptions=False,
        )
    with h5py.File(out) as file:
        one, later = (file[f"train/{start}-8/H1"][:] for start in (1000, 2000))
        other = file["valid/1000-8/H1"][:]
    assert not (one == later).any()
    assert not (one == other).any()


def test_jitter_may_swap_neighbours() -> None:
    settings = InjectionSettings(
        spacing_length=6, jitter_length=4, snr_range=(10.0, 12.0)
    )
    signals = simulate_test_signals(1000, 100, settings, seed=1, command="a test")
    assert (np.diff(signals.gps_time_ns) >= 0).all()


def test_simulated_polarizations_are_marked_as_such(tmp_path) -> None:
    out = tmp_path / "signals.hdf5"
    for split in ("train", "valid"):
        CliRunner().invoke(
            simulate,
            ["polarizations", str(out), "--count", "2", "--split", split],
            catch_exceptions=False,
        )
    with h5py.File(out) as file:
        assert file["train"].attrs["simulated"]
        masses = [file[split]["parameters/mass_1"][()] for split in ("train", "valid")]
    assert (masses[0] != masses[1]).any()
