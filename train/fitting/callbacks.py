"""Lightning callbacks and loggers: metrics log, checkpoints, timing, resuming."""

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
"""Key of a training's settings and times in Lightning's checkpoints."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints atomically."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the previous one stays until the new one is complete.

        Raises:
            ModelError: The file cannot be written, for example on a full disk.
        """
        write_content(path, checkpoint)


class MetricsLog(Logger):
    """Writes all metrics to one CSV file, with empty cells where a step has none.

    Lightning's ``CSVLogger`` deletes an existing log. This one continues it when a
    training is resumed.

    Args:
        path: The CSV file; replaced atomically with every row.
        step: Step that the training resumes from, 0 for a new training. Rows from this
            step on are dropped, since the training repeats them.
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
        """Name of the CSV file."""
        return self.path.name

    @property
    def version(self) -> str:
        """Empty: each training has one log."""
        return ""

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: the configuration has a file of its own beside the log."""

    @rank_zero_only
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """Add metrics to the row of their step."""
        if not self.rows or int(self.rows[-1]["step"]) != step:
            self.rows.append({"step": step})
        self.rows[-1] |= metrics
        names = dict.fromkeys(name for row in self.rows for name in row)
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as out:
            writer = csv.DictWriter(out, list(names))
            writer.writeheader()
            writer.writerows(self.rows)


class Loading(lightning.Callback):
    """Logs ``loading_share``, the fraction of time spent waiting for windows.

    The fraction covers the steps since the last logged value. Validations and
    Lightning's work between epochs don't count.
    """

    def __init__(self) -> None:
        self.waiting_time = self.working_time = 0.0
        self.last_time: float | None = None

    def _elapsed(self) -> float:
        if torch.cuda.is_available():
            # Otherwise queued GPU work would be counted as waiting for windows.
            torch.cuda.synchronize()
        now = time.perf_counter()
        elapsed = 0.0 if self.last_time is None else now - self.last_time
        self.last_time = now
        return elapsed

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Restart the clock: validation and the start of the workers don't count."""
        self.last_time = None

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Add the time since the last step to the waiting time."""
        self.waiting_time += self._elapsed()

    def on_train_batch_end(
        self, trainer: Any, pl_module: lightning.LightningModule, *arguments: Any
    ) -> None:
        """Add the step's time to the working time, and log the share."""
        self.working_time += self._elapsed()
        total = self.waiting_time + self.working_time
        pl_module.log("loading_share", self.waiting_time / total if total else 0.0)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self.waiting_time = self.working_time = 0.0


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` after each validation, and ``best.ckpt`` if it is the best.

    Lightning's ``ModelCheckpoint`` updates its last checkpoint only when the weights
    are the best so far, and loses track of the best ones if the folder is moved.

    Args:
        folder: Folder of the two checkpoints.
        monitor: Validation metric that ranks the weights. The smallest is best if its
            name ends in ``loss``, otherwise the largest.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder, self.monitor = folder, monitor
        self.best: float | None = None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Write the checkpoints.

        Raises:
            ConfigurationError: The validation does not log the monitored metric.
        """
        if self.monitor not in trainer.callback_metrics:
            raise ConfigurationError(
                "monitor: expected one of the validation's metrics "
                f"({', '.join(sorted(trainer.callback_metrics))}), found {self.monitor}"
            )
        score = float(trainer.callback_metrics[self.monitor])
        if self.monitor.endswith("loss"):
            score = -score
        # The metric is NaN where the livetime is too short; any number beats it.
        if self.best is None or score > self.best or math.isnan(self.best):
            self.best = score
            trainer.save_checkpoint(self.folder / "best.ckpt")
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """Metric of the best weights so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metric of the best weights so far."""
        self.best = state_dict["best"]


class Identity(lightning.Callback):
    """Stores a training's settings, command and run time in each checkpoint.

    Args:
        identity: ``model``, ``geometry`` (JSON), and all other settings that must match
            when the training is resumed; JSON-ready.
        command: Command that started the training.

    Attributes:
        identity: The settings, as JSON gives them back.
        before: Wall and CPU time of the training before it was resumed, s.
        final: Wall and CPU time of the complete training, s; empty until it ends.
        other_versions: For each package whose version changed since the training
            started: the version then and the version now.
    """

    def __init__(self, identity: dict[str, Any], command: str) -> None:
        # Through JSON: tuples become lists, and the argument parser's types go.
        self.identity = json.loads(json.dumps(identity))
        self.command = command
        self.started_time, self.cpu_started_time = time.monotonic(), cpu_time()
        self.before = {"wall_time_length": 0.0, "cpu_time_length": 0.0}
        self.final: dict[str, float] = {}
        self.other_versions: dict[str, tuple[str, str]] = {}

    def times(self, trainer: lightning.Trainer) -> dict[str, float]:
        """Wall and CPU time of the training so far, s, including before a resume.

        A collective operation: all processes of a distributed training must call it.
        """
        wall = time.monotonic() - self.started_time
        process_cpu = torch.tensor(
            cpu_time() - self.cpu_started_time, device=trainer.strategy.root_device
        )
        cpu = float(trainer.strategy.reduce(process_cpu, reduce_op="sum"))
        return {
            "wall_time_length": round(self.before["wall_time_length"] + wall, 1),
            "cpu_time_length": round(self.before["cpu_time_length"] + cpu, 1),
        }

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the complete training's wall and CPU time."""
        self.final = self.times(trainer)

    def on_save_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Add the settings, command, times and package versions."""
        checkpoint[RUN] = {
            "identity": self.identity,
            "command": self.command,
            "times": self.times(trainer),
            "versions": package_versions(),
        }

    def resume(self, path: Path) -> int:
        """Check that a checkpoint belongs to this training, and take over its times.

        Args:
            path: Checkpoint to resume from.

        Returns:
            Number of steps that the checkpoint has been trained for.

        Raises:
            ModelError: The file is not a training checkpoint, or has another model or
                geometry.
            ConfigurationError: Another setting differs.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            run = content[RUN]
            stored, times, command = run["identity"], run["times"], run["command"]
            versions = run["versions"]
            step = int(content["global_step"])
        except Exception as error:  # Unpickling in torch.load can raise any exception.
            raise ModelError(
                f"{path}: expected a checkpoint of 'chirpwatch train fit': {error}"
            ) from error
        expected = self.identity
        check_same(path, stored, expected)
        for key in sorted(stored.keys() | expected.keys()):
            if stored.get(key) != expected.get(key):
                raise ConfigurationError(
                    f"{key}: expected {stored.get(key)} as in {path}, found "
                    f"{expected.get(key)}; resume with the same settings"
                )
        self.before, self.command = times, command
        self.other_versions = {
            name: (before, now)
            for name, now in package_versions().items()
            if (before := versions.get(name)) != now
        }
        return step


class Printing(lightning.Callback):
    """Prints one line per validation, where output is not a terminal."""

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the step and the validation's metrics."""
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("valid_")
        }
        text = ", ".join(f"{name[6:]} {value:.4g}" for name, value in metrics.items())
        click.echo(f"step {trainer.global_step}: {text}")


def cpu_time() -> float:
    """CPU time of this process and its children, finished and running, s."""
    total = sum(os.times()[:4])
    for child in multiprocessing.active_children():
        status = Path(f"/proc/{child.pid}/stat")
        if status.exists():
            # Split after the name in brackets, the only field that may have spaces.
            fields = status.read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
