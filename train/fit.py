"""Training: one process trains, another makes its windows."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from train.checkpoint import load_checkpoint, provenance, save_checkpoint
from train.module import Detector
from train.network import Network
from train.stream import WindowStream
from train.validate import VALIDATION_SEED, validate, write_report
from train.windows import WindowSettings


def fit(
    checkpoint: str | Path,
    geometry: Geometry,
    settings: WindowSettings,
    steps: int,
    seed: int,
    width: int = 16,
    learning_rate: float = 6e-3,
    log_folder: str | Path | None = None,
    in_background: bool = True,
) -> Network:
    """Train a network and write its checkpoint.

    Args:
        checkpoint: File to write.
        geometry: Kernel, stride and whitening.
        settings: What the training windows hold.
        steps: Batches to train on.
        seed: Seed of weights and windows.
        width: Channels of the frontend's stem.
        learning_rate: Highest learning rate.
        log_folder: Where the CSV log goes; none is written if None.
        in_background: Whether windows are made in a process of their own.

    Returns:
        The trained network, in evaluation mode.
    """
    started = time.monotonic()
    # Two contending threads are slower than one beside the process that makes windows.
    torch.set_num_threads(1)
    lightning.seed_everything(seed, verbose=False)
    network = Network(geometry, width=width)
    stream = WindowStream(geometry, settings, steps, seed)
    logger: Any = False
    if log_folder is not None:
        logger = CSVLogger(str(log_folder), name="", version="")
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_epochs=1,
        logger=logger,
        log_every_n_steps=min(50, steps),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=log_folder is not None,
    )
    trainer.fit(
        Detector(network, steps, learning_rate),
        DataLoader(
            stream,
            batch_size=None,
            # No more than one: each would make the whole stream.
            num_workers=int(in_background),
            prefetch_factor=16 if in_background else None,
        ),
    )
    network.eval()
    details = {
        "seed": seed,
        "steps": steps,
        "learning_rate": learning_rate,
        "windows": asdict(settings) | {"runs": list(settings.runs)},
        "wall_time_length": round(time.monotonic() - started, 1),
        **provenance(),
    }
    save_checkpoint(checkpoint, network, details)
    return network


def fit_and_validate(
    checkpoint: str | Path, *arguments: Any, command: str, **options: Any
) -> None:
    """Train, judge the network, and write checkpoint, figures and table.

    Args:
        checkpoint: File to write; the figures lie beside it as ``.json`` and ``.md``.
        *arguments: Further arguments of :func:`fit`.
        command: How to do this again; kept in the checkpoint.
        **options: Further arguments of :func:`fit`.

    Raises:
        ConfigurationError: The seed is that of the validation.
    """
    if options.get("seed") == VALIDATION_SEED:
        raise ConfigurationError(
            f"seed: {VALIDATION_SEED} is the validation's; choose another"
        )
    network = fit(checkpoint, *arguments, **options)
    result = validate(network, VALIDATION_SEED)
    _, details = load_checkpoint(checkpoint)
    del details["geometry"], details["hyperparameters"]
    details = details | {"command": command} | result["timing"]
    save_checkpoint(checkpoint, network, details)
    report = Path(checkpoint).with_suffix(".json")
    write_report(report, {"checkpoint": details} | result)
