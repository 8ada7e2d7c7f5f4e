"""What goes on beside the training: its log, its clock, and its checkpoints."""

import csv
import json
import math
import multiprocessing
import os
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from chirpwatch.atomic import replacing
from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
)
from chirpwatch.train.networks.checkpoint import (
    check_same,
    package_versions,
    write_content,
)

RUN = "chirpwatch"
"""Key of a training's identity in the checkpoints that it resumes from."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints whole or not at all."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the former one stays until the new one is whole.

        Raises:
            ModelError: The file cannot be written, as on a full disk.
        """
        write_content(path, checkpoint)


class MetricsLog(Logger):
    """A CSV file of all figures, with empty cells where a step has none.

    Lightning's own deletes what is there; a training that is resumed goes on with its
    log instead, behind the step that it resumes from.

    Args:
        path: The file; it is whole after every row.
        step: Rows from this step on are of a part of the training that was lost.
    """

    def __init__(self, path: str | Path, step: int = 0) -> None:
        super().__init__()
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        if step and self.path.exists():
            with open(self.path, newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [row for row in rows if int(row["step"]) < step]

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @property
    def version(self) -> str:
        """There is one of each run."""
        return ""

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: the configuration is a file beside the log."""

    @rank_zero_only
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """Add figures to the row of their step."""
        if not self.rows or int(self.rows[-1]["step"]) != step:
            self.rows.append({"step": step})
        self.rows[-1] |= metrics
        names = dict.fromkeys(name for row in self.rows for name in row)
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as out:
            writer = csv.DictWriter(out, list(names))
            writer.writeheader()
            writer.writerows(self.rows)


class Loading(lightning.Callback):
    """Logs the share of the time that the training waited for windows.

    Since the last value; validations and what Lightning does between epochs are left
    out of both.
    """

    def __init__(self) -> None:
        self.waiting_time = self.working_time = 0.0
        self.last_time: float | None = None

    def _elapsed(self) -> float:
        if torch.cuda.is_available():
            # What a GPU has yet to do would be counted where the next step waits.
            torch.cuda.synchronize()
        now = time.perf_counter()
        elapsed = 0.0 if self.last_time is None else now - self.last_time
        self.last_time = now
        return elapsed

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Leave out what came before, and the start of the workers."""
        self.last_time = None

    def on_train_batch_start(self, *arguments: Any) -> None:
        """End of a wait."""
        self.waiting_time += self._elapsed()

    def on_train_batch_end(
        self, trainer: Any, pl_module: lightning.LightningModule, *arguments: Any
    ) -> None:
        """End of a step."""
        self.working_time += self._elapsed()
        total = self.waiting_time + self.working_time
        pl_module.log("loading_share", self.waiting_time / total if total else 0.0)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self.waiting_time = self.working_time = 0.0


class Checkpoints(Checkpoint):
    """Writes a checkpoint after each validation, and keeps that of the best weights.

    Lightning's ``ModelCheckpoint`` writes its last checkpoint only when weights were
    the best so far, and forgets which were when the folder is moved.

    Args:
        folder: Gets ``last.ckpt`` and ``best.ckpt``.
        monitor: Figure that tells which weights are the best: the larger the better,
            but for a loss.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder, self.monitor = folder, monitor
        self.best: float | None = None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Write the checkpoints.

        Raises:
            ConfigurationError: The validation has no such figure.
        """
        if self.monitor not in trainer.callback_metrics:
            raise ConfigurationError(
                f"monitor: expected a figure of the validation, found {self.monitor}; "
                f"there are {', '.join(sorted(trainer.callback_metrics))}"
            )
        score = float(trainer.callback_metrics[self.monitor])
        if self.monitor.endswith("loss"):
            score = -score
        # Not a number, where there was too little livetime, is never the best.
        if self.best is None or score > self.best or math.isnan(self.best):
            self.best = score
            trainer.save_checkpoint(self.folder / "best.ckpt")
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """What the best weights scored."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what the best weights scored."""
        self.best = state_dict["best"]


class Identity(lightning.Callback):
    """Keeps in each checkpoint what training it is of, and the time that it took.

    Args:
        identity: ``model``, ``geometry`` (JSON), and what else must be the same for a
            training to be gone on with; plain values.
        command: What began the training.

    Attributes:
        other_versions: By package, the versions that a training that is gone on with
            began with, and those now, where they differ.
    """

    def __init__(self, identity: dict[str, Any], command: str) -> None:
        # As it is read back: no tuples, and no types of the argument parser's.
        self.identity = json.loads(json.dumps(identity))
        self.command = command
        self.started_time, self.cpu_started_time = time.monotonic(), cpu_time()
        self.before = {"wall_time_length": 0.0, "cpu_time_length": 0.0}
        self.final: dict[str, float] = {}
        self.other_versions: dict[str, tuple[str, str]] = {}

    def times(self, trainer: lightning.Trainer) -> dict[str, float]:
        """Wall and CPU time of the training so far, s, of all of its parts.

        All processes of the training have to ask together.
        """
        wall = time.monotonic() - self.started_time
        mine = torch.tensor(
            cpu_time() - self.cpu_started_time, device=trainer.strategy.root_device
        )
        cpu = float(trainer.strategy.reduce(mine, reduce_op="sum"))
        return {
            "wall_time_length": round(self.before["wall_time_length"] + wall, 1),
            "cpu_time_length": round(self.before["cpu_time_length"] + cpu, 1),
        }

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the times of the whole training."""
        self.final = self.times(trainer)

    def on_save_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Add identity, command and times."""
        checkpoint[RUN] = {
            "identity": self.identity,
            "command": self.command,
            "times": self.times(trainer),
            "versions": package_versions(),
        }

    def resume(self, path: Path) -> int:
        """Check that a checkpoint is of this training.

        Args:
            path: The checkpoint.

        Returns:
            The step that it was written after.

        Raises:
            ModelError: It is no such checkpoint, or of another model or geometry.
            ConfigurationError: It is of a training with other settings.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            run = content[RUN]
            found, times, command = run["identity"], run["times"], run["command"]
            versions = run["versions"]
            step = int(content["global_step"])
        except Exception as error:  # torch.load raises whatever unpickling met
            raise ModelError(
                f"{path}: expected a checkpoint of 'chirpwatch train fit': {error}"
            ) from error
        wanted = self.identity
        check_same(path, found, wanted)
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                raise ConfigurationError(
                    f"{key}: the training in {path} has {found.get(key)}, found "
                    f"{wanted.get(key)}; only the same settings go on with it"
                )
        self.before, self.command = times, command
        self.other_versions = {
            name: (before, now)
            for name, now in package_versions().items()
            if (before := versions.get(name)) != now
        }
        return step


class Printing(lightning.Callback):
    """Prints a line for each validation, where there is no terminal to draw on."""

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the step and the figures."""
        figures = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("valid_")
        }
        text = ", ".join(f"{name[6:]} {value:.4g}" for name, value in figures.items())
        click.echo(f"step {trainer.global_step}: {text}")


def cpu_time() -> float:
    """CPU time of this process and its children, s, also of those that still run."""
    total = sum(os.times()[:4])
    for child in multiprocessing.active_children():
        status = Path(f"/proc/{child.pid}/stat")
        if status.exists():
            # The name, the only field that may have spaces, is in brackets.
            fields = status.read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
