"""Trainings in subprocesses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def fit_command(folder: Path, config: str, arguments: tuple[str, ...]) -> list[str]:
    """Command line of a training."""
    command = [sys.executable, "-m", "chirpwatch", "train", "fit"]
    return [*command, f"--config={config}", f"--folder={folder}", *arguments]


def train_and_kill(folder: Path, config: str, arguments: tuple[str, ...]) -> None:
    """Train, and kill the process once the first checkpoint is written."""
    process = subprocess.Popen(
        fit_command(folder, config, arguments),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (folder / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
