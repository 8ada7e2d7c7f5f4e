"""Compare networks at the same training cost: ``python -m benchmarks.networks FOLDER``.

Trains the reference ResNet, the same as a dense network, and ``split``, each with three
seeds, on the same kind of windows and for about the same CPU time. Writes their
efficiency and cost to ``FOLDER/comparison.md`` and ``.png``. Takes about two hours of
two cores; after an interruption, the same command resumes.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from chirpwatch.train.evaluation.compare import SNR
from chirpwatch.train.evaluation.report import (
    NETWORK,
    RESULTS,
)
from chirpwatch.train.evaluation.tables import write_report
from chirpwatch.train.evaluation.validation import validate
from chirpwatch.train.networks.checkpoint import load_checkpoint

CORES = 2
SEEDS = (1, 2, 3)
# Steps and windows per step, for twelve minutes of one core of an AMD Zen 5. A window
# costs the ResNets fifteen times as much; with fewer windows per step, they learn more
# in the same time.
BUDGETS = {"split": (3500, 256), "dense": (2100, 32), "seed": (2100, 32)}
CONFIGURATIONS = {"split": "split", "dense": "dense", "seed": "dense"}
# One small validation at the end, since the last weights are compared.
VALIDATION = {
    "length": 1024,
    "slides": 20,
    "injections": 100,
    "windows": 2000,
}
# All noise and glitches of a full validation and the signals at the SNR that is
# compared; as little as possible of everything else.
JUDGEMENT: dict[str, Any] = {
    "snrs": (SNR,),
    "batches": 4,
    "scatter": 100,
    "optimum_windows": 2000,
    "optimum_signals": 100,
}


def chirpwatch(*arguments: object) -> None:
    """Run a command on one core."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "chirpwatch", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def train(folder: Path, model: str, seed: int) -> None:
    """Train one network, or resume its training."""
    if (folder / "network.ckpt").exists():
        return
    if (folder / "checkpoints" / "last.ckpt").exists():
        chirpwatch("train", "fit", "--folder", folder, "--resume")
        return
    steps, batch_size = BUDGETS[model]
    options = {
        "model.model": model,
        "model.growth_weight": 0,
        "data.windows.batch_size": batch_size,
        # Windows are made between the steps, so that their time counts as training.
        "data.workers": 0,
        "trainer.devices": 1,
        "trainer.strategy": "auto",
        "steps": steps,
        "validate_every": steps,
        "figures": "none",
        **{f"data.validation_{name}": value for name, value in VALIDATION.items()},
    }
    chirpwatch(
        *("train", "fit", "--config", CONFIGURATIONS[model]),
        *("--folder", folder, "--seed", seed),
        *(f"--{name}={value}" for name, value in options.items()),
    )


def judge(folder: Path) -> None:
    """Measure one network's efficiency in a process of its own."""
    if not (folder / RESULTS).exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.networks", "--judge", str(folder)]
        subprocess.run(command, check=True, env=environment)


def judge_here(folder: Path) -> None:
    """Measure one network's figures in the comparison, in this process."""
    torch.set_num_threads(1)
    network, details = load_checkpoint(folder / NETWORK)
    result = validate(network, **JUDGEMENT)
    write_report(folder / RESULTS, {"checkpoint": details} | result)


def main(arguments: Sequence[str]) -> None:
    """Train, judge and compare the networks; or judge one of them."""
    if arguments[0] == "--judge":
        judge_here(Path(arguments[1]))
        return
    root = Path(arguments[0])
    # The most expensive first, so that no core is idle at the end.
    runs = [(model, seed) for model in ("seed", "dense", "split") for seed in SEEDS]

    def train_and_judge(run: tuple[str, int]) -> Path:
        folder = root / f"{run[0]}-{run[1]}"
        train(folder, *run)
        judge(folder)
        return folder

    with ThreadPoolExecutor(CORES) as pool:
        folders = list(pool.map(train_and_judge, runs))
    chirpwatch("train", "compare", *folders, "--out", root / "comparison.md")
    print((root / "comparison.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
