"""The network ``matched``: its filters, its score, its training and its export."""

import copy
import dataclasses
import json
import re

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.parts import (
    without_ceilings,
    without_learned_channels,
    without_learned_frontend,
    without_small_network,
    without_templates,
)
from chirpwatch.errors import (
    ConfigurationError,
    GeometryError,
    ModelError,
)
from chirpwatch.export.networks import (
    export_networks,
    tiled,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.data.windows import Batch
from chirpwatch.train.fitting.fit import fit
from chirpwatch.train.fitting.module import (
    TrainingModule,
    cross_entropy,
)
from chirpwatch.train.networks.bank import MERGER_LENGTH, Bank, BankSettings
from chirpwatch.train.networks.baseline import SeedResNet
from chirpwatch.train.networks.checkpoint import (
    load_checkpoint,
    load_sliding,
    save_checkpoint,
)
from chirpwatch.train.networks.filters import PHASES, MatchedFilters, SubBank
from chirpwatch.train.networks.matched import MatchedNetwork
from chirpwatch.train.networks.models import (
    build_model,
    model_name,
)
from chirpwatch.train.networks.network import Network
from chirpwatch.train.networks.placement import place
from chirpwatch.train.networks.templates import whitened_spectra
from tests.networks import TINY

GEOMETRY = Geometry(kernel_length=2.0)
TEMPLATES, GROUPS = 16, 8
# Sub-banks differ in all lengths and in size; the longest is not the first.
LENGTHS = ((0.9, 0.6, 0.2), (1.145, 0.7, 0.28), (0.77, 0.5, 0.25))
COUNTS = (4, 8, 4)


def sub_banks(*ranks: int) -> list[SubBank]:
    return [
        SubBank(count, ranks, lengths)
        for count, lengths in zip(COUNTS, LENGTHS, strict=True)
    ]


def before_length(template: int) -> float:
    """Length of a template before the merger, s."""
    return LENGTHS[int(np.searchsorted(np.cumsum(COUNTS), template, side="right"))][0]


SIZES = {"sub_banks": sub_banks(24, 16, 16), "groups": GROUPS}
STRIDES = 6


@pytest.fixture(scope="module")
def bank() -> Bank:
    settings = BankSettings(
        templates=TEMPLATES, candidates=60, min_mass=10, max_mass=100, max_spin=0.5
    )
    return place(settings, GEOMETRY)


def filter_spectra(bank: Bank) -> np.ndarray:
    """Spectra of the bank's templates up to the filters' highest frequency."""
    spectra = whitened_spectra(bank.masses, bank.spins, bank.settings, GEOMETRY)
    frequencies = np.fft.rfftfreq(4 * GEOMETRY.sample_rate, 1 / GEOMETRY.sample_rate)
    ramp = np.clip((frequencies - bank.settings.max_frequency) / 40, 0, 1)
    return spectra * np.cos(ramp * np.pi / 2) ** 2


@pytest.fixture(scope="module")
def network(bank: Bank) -> MatchedNetwork:
    """A network whose BatchNorms have statistics, so that folding them matters."""
    torch.manual_seed(1)
    network = MatchedNetwork(GEOMETRY, **SIZES)
    network.set_bank(bank)
    torch.nn.init.normal_(network.ceiling.weight, std=0.3)
    for layer in network.head.combine:
        if isinstance(layer, torch.nn.Conv1d):
            torch.nn.init.normal_(layer.weight, std=0.3)
    with torch.no_grad():
        for _ in range(3):
            network(1.2 * torch.randn(16, 2, GEOMETRY.kernel_size) + 0.1)
    return network.eval()


@pytest.fixture(scope="module")
def strain() -> torch.Tensor:
    size = GEOMETRY.kernel_size + (STRIDES - 1) * GEOMETRY.stride_size
    return torch.randn(3, 2, size, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_filters_give_the_snr_of_a_direct_correlation(bank: Bank) -> None:
    """|z|²/2 of each template against correlations at the full rate in float64."""
    filters = MatchedFilters(sub_banks(60, 40, 40), TEMPLATES, GEOMETRY.frame_size)
    lost = filters.set_bank(bank, GEOMETRY)
    assert max(lost) < 1e-3
    strain = torch.randn(1, 1, 4 * 2048, generator=torch.Generator().manual_seed(3))
    found = filters(strain)[0].numpy()

    rate = GEOMETRY.sample_rate
    spectra = filter_spectra(bank)
    merger = round(MERGER_LENGTH * rate)
    for template in range(0, TEMPLATES, 3):
        analytic = np.zeros(4 * rate, complex)
        analytic[: spectra.shape[1]] = 2 * spectra[template]
        # The bands' filters differ in length: the upper ones begin later.
        before = round(2048 * before_length(template))
        wave = np.fft.ifft(analytic)[merger - before : merger + 112]
        z = np.correlate(strain[0, 0].numpy(), wave, mode="valid")
        z /= np.sqrt((np.abs(wave) ** 2).sum() / 2)
        power = np.abs(z) ** 2 / 2
        # Merger times from filters.merger_size on, at 512 Hz.
        first = filters.merger_size - before + round(4 * bank.shift[template])
        frames = [
            power[first + 32 * i :][: filters.reach_size + 1 : 4].max()
            for i in range(found.shape[1])
        ]
        difference = found[template] - np.array(frames)
        assert np.sqrt(np.mean(difference**2)) < 0.25
        assert np.corrcoef(found[template], frames)[0, 1] > 0.98


@torch.inference_mode()
def test_a_template_in_the_strain_peaks_in_its_group_at_its_time(bank: Bank) -> None:
    filters = MatchedFilters(sub_banks(60, 40, 40), GROUPS, GEOMETRY.frame_size)
    filters.set_bank(bank, GEOMETRY)
    series = np.fft.irfft(filter_spectra(bank))
    merger = round(MERGER_LENGTH * GEOMETRY.sample_rate)
    for template, place_ in ((0, 2900), (7, 3200), (TEMPLATES - 1, 3050)):
        begin = merger - place_
        piece = series[template, begin : begin + GEOMETRY.kernel_size]
        strain = torch.tensor(10 * piece, dtype=torch.float32)[None, None]
        power = filters(strain)[0]
        group, frame = divmod(int(power.argmax()), power.shape[1])
        assert abs(group - template * GROUPS // TEMPLATES) <= 1
        begin = filters.merger_size + 32 * frame
        assert begin - 32 <= place_ <= begin + filters.reach_size + 32
        # 10² / 2, times the part of the signal that lies in strain and filter.
        before = round(2048 * before_length(template))
        seen = 50 * (piece[max(0, place_ - before) :] ** 2).sum()
        assert power.max() == pytest.approx(seen, rel=0.05)


@torch.inference_mode()
def test_template_outputs_in_noise_have_a_mean_power_of_2(bank: Bank) -> None:
    filters = MatchedFilters(sub_banks(60, 40, 40), TEMPLATES, GEOMETRY.frame_size)
    filters.set_bank(bank, GEOMETRY)
    strain = torch.randn(8, 1, 20 * 2048, generator=torch.Generator().manual_seed(5))
    mean = torch.cat([x.mean((0, 3)) for x in filters.powers(strain)], 1)
    # Two squares of unit variance; 160 s hold thousands of independent outputs.
    torch.testing.assert_close(
        mean, 2 * torch.ones(PHASES, TEMPLATES), atol=0.12, rtol=0
    )


@torch.inference_mode()
def test_dense_scores_equal_those_of_each_kernel_alone(network, strain) -> None:
    windows = strain.unfold(-1, GEOMETRY.kernel_size, GEOMETRY.stride_size)
    dense, dense_peak = network.head(network.features(strain))
    assert dense.shape == dense_peak.shape == (3, STRIDES)
    for i in range(STRIDES):
        alone, peak = network.head(network.features(windows[:, :, i]))
        torch.testing.assert_close(alone[:, 0], dense[:, i], atol=1e-4, rtol=0)
        torch.testing.assert_close(peak[:, 0], dense_peak[:, i])


@torch.inference_mode()
def test_no_detectors_frames_depend_on_anothers_strain(network, strain) -> None:
    other = strain.clone()
    other[:, 1] = 0
    changed, before = network.features(other), network.features(strain)
    torch.testing.assert_close(changed[:, 0], before[:, 0])
    assert not torch.equal(changed[:, 1], before[:, 1])


@torch.inference_mode()
def test_folding_the_norms_changes_nothing(network, strain) -> None:
    expected = network(strain)
    torch.testing.assert_close(network.fused()(strain), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network(strain), expected)


@pytest.mark.parametrize("length", [2.0, 2.5])
@pytest.mark.parametrize("before", [1.145, 0.77])
@torch.inference_mode()
def test_a_kernels_frames_cover_all_merger_times_of_training_windows(
    length, before
) -> None:
    sub_banks = [SubBank(16, (8, 8, 8), (before, 0.7, 0.28))]
    network = MatchedNetwork(Geometry(kernel_length=length), sub_banks, GROUPS).eval()
    windows = WindowSettings()
    scores, peaks = network.head.evaluate(
        network.features(torch.randn(1, 2, network.geometry.kernel_size)).sum(1)
    )
    assert scores.shape == (1, 1) and peaks.shape[1] == network.head.kernel_frames
    reach = network.matched.reach_size / 2
    first = network.peak_size - reach
    last = network.peak_size + 32 * (network.head.kernel_frames - 1) + reach
    # Light takes up to 21 ms from the geocentre to a detector.
    assert first / 2048 < length - windows.earliest_merger - 0.021
    assert last / 2048 > length - windows.latest_merger


@torch.inference_mode()
def test_terms_are_the_log_sum_exp_of_the_groups(network, strain) -> None:
    total = network.features(strain).sum(1)
    limited, coarse, _ = network.head.terms(total)
    groups, frames = network.head.groups, network.head.kernel_frames
    kernels = total.double().unfold(-1, frames, 8).amax(-1)
    for values, prior, found in (
        (kernels[:, :groups], network.head.prior, limited),
        (kernels[:, groups : groups + 2], network.head.coarse_prior, coarse),
    ):
        expected = (values + prior).logsumexp(1).float()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)


@torch.inference_mode()
def test_ceilings_limit_the_groups_values(network, strain) -> None:
    loud = network.features(50 * strain)[:, :, :GROUPS]
    frames = loud.shape[-1]
    flat = (50 * strain).reshape(6, 1, -1)
    assert (network.matched(flat) > 100).float().mean() > 0.9
    # The limit is soft, on a scale of 4.
    assert loud.shape == (3, 2, GROUPS, frames)
    assert loud.max() < 200


@torch.inference_mode()
def test_the_benchmark_removes_parts_one_at_a_time(network, strain) -> None:
    power, frames = network.filter(strain.flatten(0, 1)[:, None])
    changed = copy.deepcopy(network)
    without_ceilings(changed)
    limited = changed.limit(power, frames)[:, :GROUPS]
    whole = power[..., changed.FRAMES_BEFORE :]
    torch.testing.assert_close(limited, whole, rtol=1e-4, atol=1e-3)
    total = network.features(strain).sum(1)
    limited, coarse, learned = network.head.terms(total)
    for leave_out, rest in (
        (without_learned_channels, torch.zeros_like(learned)),
        (without_small_network, learned),
    ):
        changed = copy.deepcopy(network)
        leave_out(changed)
        terms = changed.head.terms(total)
        for found, expected in zip(terms, (limited, coarse, rest), strict=True):
            torch.testing.assert_close(found, expected)
    plain = network.head.weights[0] * limited + network.head.weights[1] * learned
    score, _ = changed.head.evaluate(total)
    torch.testing.assert_close(score, plain + network.head.offset)


def test_the_benchmark_removes_inputs_one_at_a_time(network, strain) -> None:
    power, frames = network.filter(strain.flatten(0, 1)[:, None])
    values = network.limit(power, frames)
    changed = copy.deepcopy(network)
    without_learned_frontend(changed)
    without = changed.limit(power, frames)
    torch.testing.assert_close(changed.limit(power, frames + 5), without)
    assert (without - values).abs().max() > 1e-3
    changed = copy.deepcopy(network)
    without_templates(changed)
    silent, frames = changed.filter(strain.flatten(0, 1)[:, None])
    assert not silent.any()
    without = changed.limit(silent, frames)
    # The learned channels do not depend on the removed templates.
    learned = slice(GROUPS + GROUPS // changed.COARSE_GROUPS, -1)
    torch.testing.assert_close(
        changed.limit(power, frames)[:, learned], without[:, learned]
    )
    assert (without[:, learned] - values[:, learned]).abs().max() > 1e-3


def test_exported_halves_give_the_same_scores(network, strain) -> None:
    frontend, head, total_head = export_networks(network, 100.0)
    sessions = [
        onnxruntime.InferenceSession(model.SerializeToString())
        for model in (tiled(GEOMETRY, frontend), head, total_head)
    ]
    with torch.no_grad():
        expected, peak = network.head(network.features(strain))
    (features,) = sessions[0].run(None, {"whitened": strain.numpy()})
    for session, value in zip(sessions[1:], (features, features.sum(1)), strict=True):
        score, delay = session.run(["score", "delay"], {"features": value})
        np.testing.assert_allclose(score, expected.numpy(), atol=2e-4)
        lag = GEOMETRY.kernel_size + GEOMETRY.filter_size / 2 - 100 - 32 * peak.numpy()
        np.testing.assert_allclose(delay, lag / GEOMETRY.sample_rate, atol=1e-6)


def test_checkpoints_keep_the_filters(network, strain, tmp_path) -> None:
    save_checkpoint(tmp_path / "network.ckpt", network, {})
    again, details = load_checkpoint(tmp_path / "network.ckpt", "matched", GEOMETRY)
    assert details["model"] == model_name(again) == "matched"
    with torch.no_grad():
        assert torch.equal(again(strain), network(strain))


def test_a_checkpoint_that_cannot_be_served_is_refused(tmp_path) -> None:
    seed = SeedResNet(GEOMETRY, layers=[1, 1, 1, 1], width=16)
    save_checkpoint(tmp_path / "seed.ckpt", seed, {})
    with pytest.raises(ModelError, match="the model matched or split, found seed"):
        load_sliding(tmp_path / "seed.ckpt")


def test_the_frontends_weights_are_copied_from_a_split_network(network) -> None:
    torch.manual_seed(4)
    learned = Network(Geometry())
    ours = MatchedNetwork(GEOMETRY, **SIZES)
    ours.set_learned(learned)
    for name, weight in learned.frontend.state_dict().items():
        assert torch.equal(ours.frontend.state_dict()[name], weight)


def test_slides_weigh_each_kind_of_window_by_its_share(network) -> None:
    detector = TrainingModule(
        "split", slides=4, disturbed_shares=(0.1, 0.02, 0.03), geometry=Geometry()
    )
    negatives = 60
    kinds = torch.zeros(negatives, 2, dtype=torch.long)
    kinds[:12, 0], kinds[12:18, 1], kinds[18:24] = 1, 2, 1
    positive = torch.arange(80) < 20
    features = torch.randn(80, 2, 5, 3)
    disturbances = torch.cat([torch.zeros(20, 2, dtype=torch.long), kinds])
    total, shares = detector.slide(features, positive, disturbances)
    assert total.shape == (20 + 4 * negatives, 5, 3)
    torch.testing.assert_close(total[:20], features[:20].sum(1))
    torch.testing.assert_close(total[20 : 20 + negatives], features[20:].sum(1))
    assert (shares[:20] == 0).all() and shares.sum() == pytest.approx(1)
    # The first slide is zero-lag.
    first = shares[20 : 20 + negatives]
    assert len(first[:12].unique()) == len(first[12:18].unique()) == 1
    counts = torch.zeros(4)
    for slide in range(4):
        moved = torch.stack([kinds[:, 0], kinds[:, 1].roll(7 * slide)], 1)
        both = (moved > 0).all(1)
        for number, inside in enumerate(
            (
                (moved == 0).all(1),
                ~both & (moved == 1).any(1),
                ~both & (moved == 2).any(1),
                both,
            )
        ):
            part = shares[20 + slide * negatives : 20 + (slide + 1) * negatives]
            counts[number] += part[inside].sum()
    torch.testing.assert_close(counts, torch.tensor([0.85, 0.1, 0.02, 0.03]))


def test_cross_entropy_at_equal_odds_is_pytorchs() -> None:
    scores = torch.randn(40, generator=torch.Generator().manual_seed(1))
    labels = (torch.arange(40) < 20).float()
    shares = (1 - labels) / 20
    usual = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels)
    found = cross_entropy(scores, labels > 0, shares, 1.0) / 2
    torch.testing.assert_close(found, usual)
    # Scores are log-likelihood ratios: the best constant one is 0 at any odds.
    values = torch.linspace(-8, 8, 161)
    losses = [
        float(cross_entropy(value.expand(40), labels > 0, shares, 300.0))
        for value in values
    ]
    assert abs(float(values[int(np.argmin(losses))])) < 0.11


def test_a_training_of_all_parts_lowers_the_loss(bank: Bank, tmp_path) -> None:
    path = tmp_path / "bank.json"
    path.write_text(bank.to_json())
    torch.manual_seed(3)
    sizes = SIZES | {"width": 8, "channels": 8, "hidden": 8}
    detector = TrainingModule(
        "matched",
        sizes,
        slides=2,
        low_rate_weight=0.5,
        frontend_rate=0.0,
        bank=str(path),
        geometry=GEOMETRY,
    )
    spectra = whitened_spectra(bank.masses, bank.spins, bank.settings, GEOMETRY)
    series = torch.tensor(np.fft.irfft(spectra), dtype=torch.float32)
    merger = round(MERGER_LENGTH * GEOMETRY.sample_rate)
    windows = torch.randn(32, 2, GEOMETRY.kernel_size)
    begin = merger - 2500
    waves = series[:, begin : begin + GEOMETRY.kernel_size]
    windows[:16] += 9 * waves[torch.arange(16) % TEMPLATES, None]
    labels = (torch.arange(32) < 16).float()
    batch = Batch(
        windows,
        labels,
        2500 * labels,
        12.7 * labels,
        torch.zeros(32, 2, dtype=torch.long),
    )
    optimizer = torch.optim.AdamW(detector.rate_groups(1e-2))
    detector.train()
    losses = []
    for _ in range(30):
        loss, _ = detector.losses(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    for name, parameter in detector.network.named_parameters():
        frozen = name.startswith(("frontend.", "matched."))
        assert (parameter.grad is None) == frozen, name


def test_its_configuration_trains_from_a_bank_and_a_split_network(
    bank: Bank, tmp_path
) -> None:
    (tmp_path / "bank.json").write_text(bank.to_json())
    save_checkpoint(tmp_path / "split.ckpt", Network(Geometry(), width=8), {})
    network_sizes = MatchedNetwork(GEOMETRY, **SIZES).hyperparameters
    sizes = json.dumps(network_sizes | {"width": 8})
    arguments = (
        *(key for key in TINY if "hyperparameters" not in key),
        f"--model.hyperparameters={sizes}",
        f"--model.bank={tmp_path / 'bank.json'}",
        f"--model.initial={tmp_path / 'split.ckpt'}",
        "--data.windows.first_snr=30",
        "--data.stock_batches=2",
        "--steps=2",
        "--validate_every=2",
        "--monitor=valid_loss",
    )
    fit(tmp_path / "run", ["matched"], arguments=arguments)
    network, details = load_sliding(tmp_path / "run" / "network.ckpt")
    assert isinstance(network, MatchedNetwork)
    assert details["slides"] == 12 and details["bank_content"]
    expected = MatchedFilters(sub_banks(24, 16, 16), GROUPS, 32)
    expected.set_bank(bank, GEOMETRY)
    # Filters and frontend are frozen, including the frontend's BatchNorms.
    torch.testing.assert_close(network.matched.state_dict(), expected.state_dict())
    learned = load_checkpoint(tmp_path / "split.ckpt", "split")[0]
    for name, weight in learned.frontend.state_dict().items():
        assert torch.equal(network.frontend.state_dict()[name], weight), name


def test_a_training_starts_from_a_trained_matched_network(bank: Bank, tmp_path) -> None:
    before = MatchedNetwork(GEOMETRY, **SIZES)
    before.set_bank(bank)
    before.head.offset.data.fill_(-11.0)
    path = tmp_path / "matched.ckpt"
    save_checkpoint(path, before, {})
    going_on = {
        "model": "matched",
        "hyperparameters": before.hyperparameters,
        "geometry": GEOMETRY,
        "initial": str(path),
    }
    weights = TrainingModule(**going_on).network.state_dict()
    for name, weight in before.state_dict().items():
        assert torch.equal(weights[name], weight), name
    with pytest.raises(ConfigurationError, match=r"model\.bank: expected null, since"):
        TrainingModule(**going_on, bank="bank.json")
    for changes, message in (
        ({"geometry": dataclasses.replace(GEOMETRY, highpass=30.0)}, "the geometry"),
        ({"hyperparameters": before.hyperparameters | {"width": 8}}, "'width': 8"),
    ):
        with pytest.raises(ModelError, match=message):
            TrainingModule(**going_on | changes)
    save_checkpoint(path, SeedResNet(GEOMETRY, width=16), {})
    with pytest.raises(ModelError, match="the model split or matched, found seed"):
        TrainingModule(**going_on)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"groups": 7}, "expected 7 groups of equal size"),
        ({"groups": 2}, "found 16 templates, in sub-banks of 4, 8, 4"),
        ({"geometry": Geometry(kernel_length=0.75)}, "receptive field of"),
        (
            {"geometry": Geometry(kernel_length=2.0, frame_size=64)},
            "frame_size: expected 32 for matched filters, found 64",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message) -> None:
    sizes = {"geometry": GEOMETRY, **SIZES, **sizes}
    with pytest.raises(GeometryError, match=message):
        MatchedNetwork(**sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "seed", "slides": 2}, "model.slides: expected 0 for the model seed"),
        ({"bank": "x.json"}, "model.bank: expected null for the model split"),
        ({"initial": "x.ckpt"}, "model.initial: expected null for the model split"),
        ({"disturbed_shares": (0.5, 0.3, 0.2)}, "disturbed_shares with a sum below 1"),
        ({"model": "matched", "bank": "nowhere.json"}, "nowhere.json: expected a bank"),
    ],
)
def test_settings_that_contradict_the_model_are_refused(changes, message) -> None:
    sizes = {"model": "split", "geometry": GEOMETRY} | changes
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        TrainingModule(**sizes)


def test_strain_of_another_rate_is_refused(bank: Bank) -> None:
    filters = MatchedFilters(sub_banks(8, 8, 8), GROUPS, 32)
    with pytest.raises(GeometryError, match="expected 2048 Hz"):
        filters.set_bank(bank, dataclasses.replace(GEOMETRY, sample_rate=4096))


def test_a_bank_of_another_size_is_refused(bank: Bank) -> None:
    with pytest.raises(ConfigurationError, match="expected a bank of 32 templates"):
        MatchedNetwork(GEOMETRY, [*sub_banks(8, 8, 8)] * 2, 8).set_bank(bank)


def test_an_unknown_hyperparameter_is_named() -> None:
    with pytest.raises(ModelError, match=r"model matched: .*depth"):
        build_model("matched", GEOMETRY, {"depth": 3})
