"""A training that is killed, or whose disk fills up, resumes without loss."""

import csv
import resource
import shutil
from pathlib import Path

import pytest
import torch

from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
)
from chirpwatch.train.fitting.fit import fit
from chirpwatch.train.networks.checkpoint import load_checkpoint
from tests.networks import TINY
from tests.train.process import train_and_kill

ARGUMENTS = (
    *TINY,
    "--steps=12",
    "--validate_every=4",
    "--trainer.log_every_n_steps=2",
    "--ema_decay=0.9",
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """Folder of a training that was killed after its first checkpoint."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    train_and_kill(folder, "split", ARGUMENTS)
    assert not (folder / "network.ckpt").exists()
    return folder


def test_killed_training_resumes_to_the_same_weights(killed, tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "moved"
    fit(whole, ["split"], arguments=ARGUMENTS)
    shutil.copytree(killed, parts)
    fit(parts, resume=True, arguments=["--data.workers=1"])
    for name in ("last", "best"):
        one, other = (
            torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
            for folder in (whole, parts)
        )
        assert one["global_step"] == other["global_step"]
        # Both the averaged weights and the weights themselves.
        for key in ("state_dict", "current_model_state"):
            assert all(one[key][k].equal(other[key][k]) for k in one[key])
    weights = [
        torch.load(folder / "network.ckpt", weights_only=True)["weights"]
        for folder in (whole, parts)
    ]
    assert all(weights[0][k].equal(weights[1][k]) for k in weights[0])
    logs = []
    for folder in (whole, parts):
        with open(folder / "metrics.csv", newline="") as file:
            logs.append(list(csv.DictReader(file)))
        for row in logs[-1]:
            del row["loading_share"]
    assert logs[0] == logs[1] and len(logs[0]) == 6


def test_a_finished_training_is_only_validated_again(tmp_path, capsys) -> None:
    folder = tmp_path / "run"
    fit(folder, ["split"], arguments=(*TINY, "--steps=2"))
    _, before = load_checkpoint(folder / "network.ckpt")
    # As if killed during validation, on a machine with another PyTorch.
    (folder / "network.ckpt").unlink()
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["chirpwatch"]["versions"]["torch"] = "1.0"
    torch.save(content, last)
    fit(folder, resume=True)
    _, after = load_checkpoint(folder / "network.ckpt")
    assert 0 < after["cpu_time_length"] <= before["cpu_time_length"]
    assert 0 < after["wall_time_length"] <= before["wall_time_length"]
    assert "started with torch 1.0 and resumes with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (300_000, r"best\.ckpt: .*File too large; the previous one is kept"),
        (200, "too large.*intact"),
    ],
    ids=["checkpoint", "log"],
)
def test_full_disk_is_reported_and_keeps_the_previous_checkpoint(
    killed, tmp_path, room, message
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    last = folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    assert len(before) > room
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(ModelError, match=message):
            fit(folder, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert last.read_bytes() == before
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "best.ckpt"}


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("--model.model=dense", ModelError, "of the model dense, found split"),
        (
            "--data.geometry.highpass=20",
            ModelError,
            'of the geometry .*highpass": 20.* found .*highpass": 32',
        ),
        ("--steps=24", ConfigurationError, "steps: expected 12 .*, found 24"),
        ("--trainer.devices=2", ConfigurationError, "devices: expected 1 .*, found 2"),
        ("--monitor=valid_found_day", ConfigurationError, "monitor: .*found_day"),
        (
            "--data.validation_windows=9",
            ConfigurationError,
            "validation: .*'windows': 9",
        ),
        ("--seed_everything=5", ConfigurationError, "seed: expected 1 .*, found 5"),
    ],
)
def test_a_training_with_other_settings_is_not_resumed(
    killed, argument, error, message
) -> None:
    with pytest.raises(error, match=message):
        fit(killed, resume=True, arguments=[argument])


def test_an_existing_training_is_not_overwritten(killed) -> None:
    with pytest.raises(ConfigurationError, match=r"has a training already; .*--resume"):
        fit(killed, ["split"], arguments=ARGUMENTS)


def test_a_damaged_checkpoint_is_not_resumed(killed, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"half of a checkpoint")
    with pytest.raises(ModelError, match=r"last\.ckpt: expected a checkpoint of"):
        fit(folder, resume=True)
