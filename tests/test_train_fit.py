"""Training, checkpoints, validation and their commands, on a small scale."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from chirpwatch.errors import ModelError
from chirpwatch.geometry import Geometry
from chirpwatch.signals import read_polarizations, read_test_signals
from chirpwatch.strain import read_background
from train.checkpoint import load_checkpoint, save_checkpoint
from train.cli import train
from train.fit import fit
from train.network import Network
from train.simulate_cli import simulate
from train.validate import mixture_threshold, table, validate, write_report
from train.windows import WindowMaker, WindowSettings

GEOMETRY = Geometry()
SETTINGS = WindowSettings(
    batch_size=32, bank_size=32, stretches=1, first_snr=40.0, last_snr=30.0
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    network = fit(
        folder / "net.ckpt",
        GEOMETRY,
        SETTINGS,
        steps=100,
        seed=1,
        width=8,
        log_folder=folder / "log",
        in_background=False,
    )
    return folder, network


def test_training_learns_to_tell_loud_signals(trained) -> None:
    folder, network = trained
    log = np.genfromtxt(folder / "log" / "metrics.csv", delimiter=",", names=True)
    assert log["loss"][-1] < 0.8 * np.log(2)
    windows, labels, *_ = WindowMaker(GEOMETRY, SETTINGS, seed=9).batch(0, 30.0)
    with torch.inference_mode():
        scores = network(windows).squeeze(1)
    assert scores[labels == 1].median() > scores[labels == 0].median() + 1


def test_checkpoint_gives_the_same_scores_and_says_how_it_was_made(trained) -> None:
    folder, network = trained
    loaded, details = load_checkpoint(folder / "net.ckpt")
    x = torch.randn(2, 2, 4096)
    with torch.inference_mode():
        assert loaded(x).equal(network(x))
    assert Geometry.from_json(details["geometry"]) == GEOMETRY
    assert details["hyperparameters"]["width"] == 8
    assert details["seed"] == 1 and details["steps"] == 100
    assert len(details["data_hash"]) == 64 and "torch" in details["versions"]
    # Weights alone: an optimizer would triple it.
    parameters = sum(weight.numel() for weight in network.state_dict().values())
    assert (folder / "net.ckpt").stat().st_size < 4 * parameters + 100_000


def test_same_seed_gives_the_same_network(tmp_path) -> None:
    arguments = (GEOMETRY, SETTINGS, 3)
    one = fit(tmp_path / "a", *arguments, seed=2, width=8, in_background=False)
    two = fit(tmp_path / "b", *arguments, seed=2, width=8, in_background=True)
    other = fit(tmp_path / "c", *arguments, seed=3, width=8, in_background=False)
    weight = one.frontend.stem.conv.weight
    torch.testing.assert_close(weight, two.frontend.stem.conv.weight)
    assert not torch.allclose(weight, other.frontend.stem.conv.weight)


def test_broken_checkpoints_are_refused_with_their_name(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"none\.ckpt: no such checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("no")
    with pytest.raises(ModelError, match=r"text\.ckpt: expected a chirpwatch"):
        load_checkpoint(tmp_path / "text.ckpt")
    network = Network(GEOMETRY, width=8)
    network.hyperparameters["width"] = 16
    save_checkpoint(tmp_path / "wrong.ckpt", network, {})
    with pytest.raises(ModelError, match="size mismatch"):
        load_checkpoint(tmp_path / "wrong.ckpt")


def test_validation_reports_every_figure(trained) -> None:
    folder, network = trained
    result = validate(network, noise_length=100, signals=40, glitch_windows=300)
    for limits in result["thresholds"].values():
        assert limits["0.001"] <= limits["0.0001"]
    assert len(result["found"]["gaussian"]) == len(result["found"]["glitches"]) == 16
    for entry in result["found"]["gaussian"]:
        assert 0 <= entry["found"]["0.0001"] <= entry["found"]["0.001"] <= 1
    write_report(folder / "report.json", result)
    assert json.loads((folder / "report.json").read_text()) == result
    text = (folder / "report.md").read_text()
    assert text.endswith(table(result)) and table(result).count("\n") == 18
    assert "0.35 to 0.92 s" in text
    assert 0 <= result["timing"]["peak_within_sixteenth"] <= 1


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_thresholds_let_the_stated_share_of_a_mixture_through(share, rate) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(20_000, generator=generator)
    glitch = 3 + torch.randn(5_000, generator=generator)
    limit = mixture_threshold(noise, glitch, share, rate)
    exceed = [float((scores > limit).double().mean()) for scores in (noise, glitch)]
    found = (1 - share) * exceed[0] + share * exceed[1]
    assert found <= rate * (1 + 1e-9) and found == pytest.approx(rate, rel=0.06)


@torch.inference_mode()
def test_shipped_network_finds_what_its_report_says() -> None:
    path = Path(__file__).parents[1] / "train" / "checkpoints" / "shipped.ckpt"
    report = json.loads(path.with_suffix(".json").read_text())
    network, details = load_checkpoint(path)
    assert details["peak_offset_size"] == report["timing"]["peak_offset_size"]
    assert details["wall_time_length"] < 30 * 60
    assert report["timing"]["peak_within_sixteenth"] > 0.95
    required = {8.0: (0.91, 0.83), 10.0: (0.995, 0.995)}
    for entry in report["found"]["gaussian"]:
        if (entry["mass_1"], entry["mass_2"]) == (35, 35) and entry["snr"] in required:
            shares = entry["found"]["0.001"], entry["found"]["0.0001"]
            assert all(np.array(shares) >= required[entry["snr"]])
    settings = WindowSettings(runs=("O3",), stretches=2, bank_size=4)
    maker = WindowMaker(network.geometry, settings, seed=11)
    maker.set_bank(torch.full((4, 2), 35.0), torch.zeros(4, 2))
    rows = maker.draw_rows(400)
    noise = maker.noise(rows)
    signals, _ = maker.signals(rows, torch.full((400,), 10.0))
    limit = report["thresholds"]["gaussian"]["0.001"]
    assert (network(noise) > limit).sum() <= 3
    assert (network(noise + signals) > limit).float().mean() > 0.98


def test_commands_simulate_strain_and_the_mergers_in_it(tmp_path) -> None:
    run = CliRunner().invoke
    strain, signals = tmp_path / "background.hdf5", tmp_path / "signals.hdf5"
    place = ["--start", "1000000000", "--duration", "100"]
    result = run(simulate, ["background", str(strain), *place, "--glitch-rate", "2"])
    assert result.exit_code == 0, result.output
    (segment,) = read_background(strain, "test", ["H1", "L1"], 2048)
    assert segment.simulated and segment.duration == 100
    result = run(simulate, ["signals", str(signals), *place, "--shifts", "0,2"])
    assert result.exit_code == 0, result.output
    assert "3 mergers" in result.output
    assert len(read_test_signals(signals, segment.name, (0, 2))) == 3
    result = run(simulate, ["polarizations", str(signals), "--count", "5"])
    assert result.exit_code == 0, result.output
    assert read_polarizations(signals, "train").plus.shape == (5, 8192)
    result = run(simulate, ["signals", str(signals), "--shifts", "0"])
    assert result.exit_code == 2 and "expected 2 numbers" in result.output


@pytest.mark.parametrize(
    "arguments", [["--help"], ["fit", "--help"], ["validate", "--help"]]
)
def test_help_of_training_says_what_goes_in_and_out(arguments) -> None:
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0 and "Usage:" in result.output
