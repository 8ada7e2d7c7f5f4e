"""The validation: thresholds that the noise supports, and errors of efficiencies."""

import copy
import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

from chirpwatch.background_file import write_background
from chirpwatch.commands.cli import cli
from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.background import simulate_background
from chirpwatch.train.data.recorded import RecordedStretches
from chirpwatch.train.evaluation.bank_filter import BankFilters
from chirpwatch.train.evaluation.deployment import (
    MIN_EVENTS,
    whiten_stretch,
)
from chirpwatch.train.evaluation.effort import Effort, effort_of
from chirpwatch.train.evaluation.heldout import (
    OtherNoise,
    SpectrumStretches,
    curve_noise,
    read_glitches,
)
from chirpwatch.train.evaluation.matched_filter import MatchedFilter
from chirpwatch.train.evaluation.optimal import (
    known_signal,
    optimal_curves,
    tail_threshold,
)
from chirpwatch.train.evaluation.scoring import (
    frames_of,
    kernel_frames,
    score_windows,
)
from chirpwatch.train.evaluation.tables import (
    TABLE_RATES,
    noises_table,
    preamble,
    table,
)
from chirpwatch.train.evaluation.thresholds import FalsePositives
from chirpwatch.train.evaluation.validation import (
    Validation,
    recorded_parts,
    validate,
    weights_hash,
)
from chirpwatch.train.networks.bank import Bank, BankSettings
from chirpwatch.train.networks.baseline import (
    DenseResNet,
    SeedResNet,
)
from chirpwatch.train.networks.checkpoint import save_checkpoint
from chirpwatch.train.networks.network import Network
from tests import needs
from tests.networks import TINY_EFFORT

GEOMETRY = Geometry()


@pytest.fixture(scope="module")
def result(network: Network) -> dict:
    return validate(
        network,
        seed=3,
        **TINY_EFFORT
        | {"noise_length": 1920, "stretches": 8, "slides": 8, "signals": 40},
    )


def test_thresholds_that_the_noise_does_not_support_are_omitted(result) -> None:
    # 8 slides of 1920 s are 109,440 windows: 10 are above 1e-4, and they overlap.
    assert set(result["thresholds"]["gaussian"]) == {"0.001"}
    assert 10 <= result["clusters"]["gaussian"]["0.001"] < 0.001 * 109_440
    assert result["noise_windows"] == 8 * 240 * 57
    for kind in ("gaussian", "glitches"):
        limits = list(result["thresholds"][kind].values())
        assert limits == sorted(limits)
        for entry in result["found"][kind]:
            assert set(entry["found"]) == set(result["thresholds"][kind])
        rates = result["roc"][kind]["rates"]
        assert all(
            np.all(np.diff(shares) >= 0)
            for shares in result["roc"][kind]["found"].values()
        )
        assert kind != "gaussian" or 1e-4 < min(rates) < 6e-4
    # A tenth of 40 windows have a glitch; 400 noise windows are too few for 1e-4.
    assert "n/a" in table(result)


def test_figures_are_complete_and_valid_json(result) -> None:
    assert json.loads(json.dumps(result)) == result
    assert len(result["scatter"]["snr"]) == len(result["scatter"]["score"]) == 60
    bins = result["calibration"]["bins"]
    assert sum(one["windows"] for one in bins) == result["calibration"]["windows"]
    assert result["calibration"]["prior"] == 0.5
    assert {"peak_offset_size", "peak_within_sixteenth"} <= set(result["timing"])


def test_efficiencies_have_limits_from_the_thresholds_error(result) -> None:
    false = FalsePositives(torch.arange(100_000.0), torch.empty(0), 0)
    # 100 windows above, 10 more or fewer; rounding of sums may move it by one.
    assert false.threshold(1e-3).value == pytest.approx(99_899, abs=1)
    assert false.moved(1e-3, -1) == pytest.approx(99_909, abs=1)
    assert false.moved(1e-3, 1) == pytest.approx(99_889, abs=1)
    # Clusters of four windows: 25, and 5 more or fewer.
    rows = torch.arange(100_000.0).reshape(-1, 4)
    fours = FalsePositives(rows, torch.empty(0), 0, kernel_strides=8)
    assert fours.moved(1e-3, 1) == pytest.approx(99_879, abs=2)
    for kind in ("gaussian", "glitches"):
        for entry in result["found"][kind]:
            for rate, share in entry["found"].items():
                low, high = entry["found_low"][rate], entry["found_high"][rate]
                assert low <= share <= high


def test_glitches_are_weighted_by_their_share() -> None:
    noise, glitch = torch.arange(1000.0), torch.full((100,), 5000.0)
    false = FalsePositives(noise, glitch, 0.1)
    assert false.rate(4000) == pytest.approx(0.1)
    limit = false.threshold(0.11)
    assert false.rate(limit.value) <= 0.11 and limit.above > 100
    # A single glitch window with the weight of a tenth still counts as one.
    few = FalsePositives(noise, torch.tensor([5000.0]), 0.1)
    assert few.threshold(0.11).above < 10
    assert "0.11" not in few.thresholds([0.11])
    # Ten windows are enough, however sums are rounded.
    ten = FalsePositives(torch.arange(100_800.0), glitch, 0)
    assert ten.thresholds([1e-4])["0.0001"].value == 100_789.0
    assert FalsePositives(torch.arange(99_000.0), glitch, 0).thresholds([1e-4]) == {}


def test_overlapping_windows_are_one_cluster() -> None:
    noise = torch.linspace(-1, 0, 2000 * 57)[torch.randperm(2000 * 57)]
    noise = noise.reshape(2000, 57)
    # Three fluctuations, each loud in four windows, are fewer than ten clusters.
    for row, stride in ((0, 10), (0, 19), (1, 0)):
        noise[row, stride : stride + 4] = torch.arange(4.0) + 5
    overlapping = FalsePositives(noise, torch.empty(0), 0, kernel_strides=8)
    limit = overlapping.threshold(1e-4)
    # Of 114,000 windows, 11 may be above at most. In the first row, the last window of
    # one fluctuation and the first of the next are 6 strides apart: they overlap.
    assert (noise > limit.value).sum() == 9 and limit.above == 2
    assert overlapping.thresholds([1e-4]) == {}
    # Different rows have different strain; as rows of one, all are independent.
    apart = FalsePositives(noise.flatten(), torch.empty(0), 0, kernel_strides=8)
    assert apart.threshold(1e-4).above == 9
    # Windows whose starts are a kernel apart share no strain.
    pair = torch.zeros(1, 57)
    pair[0, [3, 11]] = 9
    assert FalsePositives(pair, torch.empty(0), 0, 8).threshold(2.5 / 57).above == 2
    assert FalsePositives(pair, torch.empty(0), 0, 9).threshold(2.5 / 57).above == 1


def test_a_repeated_glitch_is_one_cluster() -> None:
    noise, glitch = torch.zeros(9000), torch.arange(1000.0)
    shapes = torch.arange(1000) % 4
    known = FalsePositives(noise, glitch, 0.1, shapes=shapes)
    own = FalsePositives(noise, glitch, 0.1)
    # The forty loudest windows are four glitches, ten times each.
    assert own.threshold(4e-3).above == pytest.approx(40)
    assert known.threshold(4e-3).above == pytest.approx(4)
    assert known.threshold(4e-3).value == own.threshold(4e-3).value
    assert known.thresholds([4e-3]) == {} != own.thresholds([4e-3])


def test_dense_scores_have_a_row_for_each_stretch(network) -> None:
    validation = Validation(
        network, 1, Effort(stretches=2, bank_size=8, glitch_bank_size=8)
    )
    scores = validation.noise_scores(1, 2)
    assert scores.shape == (2 * 30, 57)
    strain = torch.stack([pool.blocks[3] for pool in validation.maker.pools])
    with torch.inference_mode():
        torch.testing.assert_close(scores[3], network.fused()(strain[None])[0])


@pytest.mark.parametrize(
    ("model", "windows_per_second", "windows_per_cluster"),
    [(DenseResNet, 57 / 8, 5), (SeedResNet, 1, 1)],
)
def test_default_efforts_reach_the_rates_of_the_table(
    model, windows_per_second, windows_per_cluster
) -> None:
    network = model(GEOMETRY, layers=[1, 1], width=16)
    for quick, rate in ((False, TABLE_RATES[-1]), (True, TABLE_RATES[0])):
        effort = effort_of(network, quick)
        windows = effort.noise_length * effort.slides * windows_per_second
        assert int(windows * rate) >= MIN_EVENTS * windows_per_cluster


def test_scores_of_single_windows_differ() -> None:
    torch.manual_seed(1)
    network = SeedResNet(GEOMETRY, layers=[1, 1], width=16).eval()
    windows = torch.randn(256, 2, GEOMETRY.kernel_size)
    with torch.inference_mode():
        scores = score_windows(network, windows)
        exact = network(windows)[:, 0]
    assert scores.dtype == torch.float32
    # In bfloat16, groups of them would be equal.
    assert len(scores.unique()) == 256
    assert (scores - exact).abs().max() < 0.2 * exact.std()


def test_a_stretchs_last_frame_is_counted(network) -> None:
    size, frame_size = GEOMETRY.kernel_size, GEOMETRY.frame_size
    overlap = size - kernel_frames(network) * frame_size
    for frames in (1, 2):
        length = 32 * GEOMETRY.sample_rate + overlap + frames * frame_size
        found = frames_of(network, torch.randn(2, length)).shape[-1]
        assert found == 32 * GEOMETRY.sample_rate // frame_size + frames


@pytest.mark.parametrize(
    ("noise", "parts"),
    [
        (OtherNoise("O4", run="O4"), []),
        (OtherNoise("glitches", glitches=torch.zeros(1, 4096)), ["glitches"]),
    ],
)
def test_recorded_data_are_named(noise, parts) -> None:
    assert recorded_parts(noise) == parts


@pytest.mark.parametrize("simulated", [True, False])
def test_strain_files_are_described_by_their_attributes(tmp_path, simulated) -> None:
    path = tmp_path / "background.hdf5"
    noise, _ = simulate_background(200, "O4", ["H1"], 2048, seed=1)
    write_background(path, "test", 1000, noise, 2048, {"simulated": simulated})
    sources = {"H1": RecordedStretches(path, "test", "H1", GEOMETRY)}
    parts = [] if simulated else ["strain"]
    assert recorded_parts(OtherNoise("strain", sources)) == parts


def test_different_weights_have_different_hashes(network) -> None:
    other = copy.deepcopy(network)
    assert weights_hash(other) == weights_hash(network)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(other) != weights_hash(network)


def test_the_preamble_describes_the_data_that_were_used(result) -> None:
    text = preamble(result)
    assert "0.65 to 0.08 s" in text and "Made by" not in text and "cores" not in text
    settings = result["settings"] | {"latest_merger": 0.2, "max_disturbance_snr": 50.0}
    details = {"command": "chirpwatch train fit", "wall_time_length": 120.0}
    text = preamble(result | {"settings": settings, "checkpoint": details})
    assert "Made by `chirpwatch train fit` in 2.0 minutes.\n" in text
    assert "0.65 to 0.2 s" in text and "SNR 4 to 50" in text


@pytest.mark.parametrize("model", [DenseResNet, SeedResNet])
def test_all_kinds_of_network_are_validated_alike(model) -> None:
    torch.manual_seed(1)
    network = model(GEOMETRY, layers=[1, 1], width=16).eval()
    result = validate(network, seed=3, slides=1, **TINY_EFFORT)
    windows = 57 if model is DenseResNet else 8
    assert result["noise_windows"] == 30 * windows
    assert result["thresholds"] == {"gaussian": {}, "glitches": {}}
    assert result["timing"] == {}


def test_worker_processes_give_the_same_scores(network: Network) -> None:
    noises = [curve_noise("O4", GEOMETRY), OtherNoise("x", glitch_weights={"blip": 1})]
    one, two = (
        validate(network, seed=3, slides=1, noises=noises, processes=n, **TINY_EFFORT)
        for n in (1, 3)
    )
    assert one == two
    assert [noise["name"] for noise in two["noises"]] == ["O4 curves", "x"]


def test_a_known_signals_efficiency_is_a_gaussian_tail() -> None:
    shares = known_signal(np.array([0.0, 8.0]), 1e-4)
    assert shares[0] == pytest.approx(1e-4)
    assert shares[1] == pytest.approx(1 - stats.norm.cdf(stats.norm.isf(1e-4) - 8))


def test_the_matched_filter_finds_fewer_than_with_known_time_and_phase() -> None:
    curves = optimal_curves(
        GEOMETRY,
        ((35.0, 35.0),),
        (1e-3, 1e-4),
        run="O3",
        window_length=0.57,
        seed=1,
        noise_windows=20_000,
        signals=300,
        bank_windows=0,
        bank_signals=0,
    )
    assert curves["bank"] == []
    (matched,) = curves["matched"]
    for rate in ("0.001", "0.0001"):
        assert np.all(
            np.array(matched["found"][rate]) <= np.array(curves["known"][rate]) + 0.02
        )
    # Such filters are known to reach 95 % or more at SNR 8 and 1e-4.
    assert matched["found"]["0.0001"][curves["snr"].index(8.0)] > 0.9
    assert matched["fitted"] == ["0.0001"]


def test_the_filter_measures_the_injected_snr() -> None:
    optimum = MatchedFilter(GEOMETRY, (20.0, 10.0), "O3", 0.57, seed=2)
    found = optimum.signal_statistics(100, np.array([60.0]))
    # Noise in two phases and two detectors adds 4; sampling loses half a per cent.
    assert np.sqrt(found - 4).mean() == pytest.approx(60, abs=0.6)


def bank_of(masses: list[list[float]]) -> Bank:
    count = len(masses)
    return Bank(
        settings=BankSettings(templates=count, candidates=count),
        masses=np.array(masses, dtype=float),
        spins=np.zeros((count, 2)),
        shift=np.zeros(count),
        share=np.full(count, 1 / count),
    )


@pytest.mark.parametrize("ifos", [("H1",), ("H1", "L1"), ("H1", "L1", "V1")])
def test_a_banks_filters_have_unit_noise_and_the_injected_snr(ifos) -> None:
    geometry = dataclasses.replace(GEOMETRY, ifos=ifos)
    bank = BankFilters(geometry, bank_of([[20, 10], [35, 35]]), "O3", 0.57, seed=2)
    for i in range(len(ifos)):
        outputs = bank._outputs(bank._noise(), i)
        assert outputs.real.std() == pytest.approx(1, abs=0.05)
        assert outputs.imag.std() == pytest.approx(1, abs=0.05)
    # The SNR gives 200 with a scatter of 20. The trials reduce it: two templates, and
    # few of 584 times and of the delays between detectors match.
    found = bank.signal_statistics((20.0, 10.0), 160, np.array([20.0]))
    assert 200 - 20 < found.mean() < 200
    assert found.std() == pytest.approx(20, abs=4)
    assert len(bank.noise_statistics(300)) == 300


@pytest.mark.parametrize("ifos", [("H1",), ("H1", "L1"), ("H1", "L1", "V1")])
def test_a_banks_statistic_is_the_mean_likelihood_of_templates_and_times(ifos) -> None:
    geometry = dataclasses.replace(GEOMETRY, ifos=ifos)
    bank = BankFilters(geometry, bank_of([[20, 10], [35, 35]]), "O3", 0.57, seed=3)
    outputs = [bank._outputs(bank._noise(), i)[:, :3000] for i in range(len(ifos))]
    statistics = bank._statistic(
        [bank._single(one, i) for i, one in enumerate(outputs)], 1000
    )
    likelihoods = [np.exp(np.abs(one.numpy()) ** 2.0 / 2) for one in outputs]
    # Delays at 1024 Hz: light takes 10 ms from H1 to L1, and 27 ms to V1.
    assert bank.reaches == [0, 11, 28][: len(ifos)]
    joint = likelihoods[0]
    for one, reach in zip(likelihoods[1:], bank.reaches[1:], strict=True):
        moved = [np.roll(one, k, 1) for k in range(-reach, reach + 1)]
        joint = joint * np.mean(moved, 0)
    expected = np.log(joint.mean(0).reshape(3, 1000).mean(1))
    np.testing.assert_allclose(statistics.numpy(), expected, atol=2e-3)


def test_a_bank_finds_less_with_more_templates() -> None:
    """With the signal's template alone, it finds as much as a matched filter."""
    rate, snrs = 1e-3, np.array([7.0, 8.0])
    one = MatchedFilter(GEOMETRY, (20.0, 10.0), "O3", 0.57, seed=4)
    limit = tail_threshold(one.noise_statistics(10_000), rate).value
    matched = (one.signal_statistics(400, snrs) > limit).mean(1)
    shares = []
    for others in (0, 31):
        masses = [[20.0, 10.0], *([20 + k, 10 + k] for k in range(1, others + 1))]
        bank = BankFilters(GEOMETRY, bank_of(masses), "O3", 0.57, seed=4)
        limit = tail_threshold(bank.noise_statistics(20_000), rate).value
        found = bank.signal_statistics((20.0, 10.0), 400, snrs) > limit
        shares.append(found.mean(1))
    assert shares[0] == pytest.approx(matched, abs=0.06)
    assert shares[1][0] < shares[0][0] - 0.03


def test_the_fitted_tail_of_squared_snr_is_extrapolated() -> None:
    rng = np.random.default_rng(1)
    statistics = 2 * rng.exponential(size=100_000)
    counted, fitted = (tail_threshold(statistics, rate) for rate in (1e-3, 1e-6))
    assert not counted.fitted and fitted.fitted
    assert counted.value == pytest.approx(2 * np.log(1e3), rel=0.05)
    assert fitted.value == pytest.approx(2 * np.log(1e6), rel=0.06)


def test_recorded_glitches_replace_the_noise(tmp_path, network) -> None:
    path = tmp_path / "glitches.hdf5"
    series = np.random.default_rng(2).normal(size=(3, 8192))
    series[:, 4096] = 50
    with h5py.File(path, "w") as file:
        file["glitches"], file.attrs["sample_rate"] = series, 2048
    glitches = read_glitches(path, 2048, 2048)
    assert glitches.shape == (3, 4096) and (glitches[:, 2048] == 50).all()
    noise = OtherNoise("glitches", glitches=glitches)
    validation = Validation(
        network, 1, Effort(stretches=1, bank_size=8, glitch_bank_size=8), noise
    )
    windows = torch.zeros(64, 2, 2048)
    chosen = validation.draw_glitches(64)
    assert chosen.bincount().tolist() == [22, 21, 21]
    disturbed = validation._disturb(windows, validation.maker.draw_rows(64), chosen)
    loud = (disturbed == 50).any(-1)
    assert (loud.sum(1) == 1).all()
    with pytest.raises(StrainError, match=r"at 4096 Hz, found the shape \(3, 8192\)"):
        read_glitches(path, 4096, 2048)
    with pytest.raises(StrainError, match="16384 or more"):
        read_glitches(path, 2048, 8192)


def test_the_command_validates_on_other_noise(tmp_path, network, monkeypatch) -> None:
    sizes = TINY_EFFORT | {"noise_length": 960, "stretches": 4, "slides": 4}
    monkeypatch.setattr("chirpwatch.train.evaluation.effort.QUICK", Effort(**sizes))
    spectra, strain = tmp_path / "spectra", tmp_path / "background.hdf5"
    asd = np.full(1025, 4e-23)
    for ifo in ("H1", "L1"):
        (spectra / ifo).mkdir(parents=True)
        with h5py.File(spectra / ifo / "psd-0.hdf", "w") as file:
            file["data"] = asd**2
            file["data"].attrs["delta_f"] = 1.0
    noise, _ = simulate_background(200, "O4", ["H1", "L1"], 2048, seed=1)
    write_background(strain, "test", 1000, noise, 2048, {"simulated": True})
    checkpoint, report = tmp_path / "net.ckpt", tmp_path / "report.json"
    save_checkpoint(checkpoint, network, {"seed": 1})
    options = ["--quick", "--curves", "O4/T2000012-high"]
    options += ["--spectra", str(spectra), "--background", str(strain)]
    done = CliRunner().invoke(
        cli, ["train", "validate", str(checkpoint), str(report), *options]
    )
    assert done.exit_code == 0, done.output
    result = json.loads(report.read_text())
    names = [noise["name"] for noise in result["noises"]]
    assert names == [
        "O4/T2000012-high curves",
        "measured spectra (spectra)",
        "strain of background.hdf5",
    ]
    assert result["simulated"] and result["quick"]
    assert result["weights"] == weights_hash(network)
    for noise in result["noises"]:
        # Whitened, other stationary noise has about the same false-positive rate.
        assert 0 < noise["held_rates"]["gaussian"]["0.001"] < 1e-2
    assert noises_table(result) in report.with_suffix(".md").read_text()


def test_files_without_valid_spectra_are_refused(tmp_path) -> None:
    with pytest.raises(StrainError, match="H1: expected HDF5 files of spectra"):
        SpectrumStretches.of_folder(tmp_path, "H1", 2048)
    (tmp_path / "L1").mkdir()
    with h5py.File(tmp_path / "L1" / "psd.hdf", "w") as file:
        file["data"] = np.ones(100)
        file["data"].attrs["delta_f"] = 1.0
    with pytest.raises(StrainError, match="100 values to 99 Hz"):
        SpectrumStretches.of_folder(tmp_path, "L1", 2048)


def test_recorded_strain_whitens_to_unit_variance(tmp_path) -> None:
    (recorded,) = needs.shared_data("o3a_noise_500s.hdf")
    with h5py.File(recorded, "r") as file:
        strain = file["data"][: 150 * 2048]
    path = tmp_path / "background.hdf5"
    write_background(path, "test", 1238205077, {"H1": strain}, 2048, {})
    source = RecordedStretches(path, "test", "H1", GEOMETRY)
    piece, asd = source.draw(64 * 2048, np.random.default_rng(1))
    assert asd[200] == pytest.approx(7e-24, rel=0.6)
    white = whiten_stretch(piece, GEOMETRY)
    # Real noise is only nearly stationary: 1.10 over the whole file.
    assert 1.0 < white.std() < 1.4


def test_measured_spectra_are_read_from_the_files() -> None:
    (folder,) = needs.shared_data("psds")
    source = SpectrumStretches.of_folder(folder, "L1", 2048)
    assert len(source.asds) == 20
    strain, asd = source.draw(64 * 2048, np.random.default_rng(1))
    power = np.abs(np.fft.rfft(strain.reshape(-1, 4096) * np.hanning(4096))) ** 2
    density = 2 * power.mean(0) / 2048 / (np.hanning(4096) ** 2).sum()
    band = slice(200, 400)
    ratio = np.median(np.sqrt(density[band]) / asd[band])
    assert ratio == pytest.approx(1, abs=0.05)
