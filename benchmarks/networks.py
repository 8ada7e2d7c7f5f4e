"""Networks trained alike: ``python -m benchmarks.networks FOLDER``.

The reference ResNet, the same made dense, and the network that ships, each with three
seeds, on the same kind of windows and for about the same CPU time; then what they find
and cost, in ``FOLDER/comparison.md`` and ``.png``. Takes about two hours of two cores.
Whatever is in the folder already is kept: the same command goes on where it ended.
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
    FIGURES,
    NETWORK,
)
from chirpwatch.train.evaluation.tables import write_report
from chirpwatch.train.evaluation.validation import validate
from chirpwatch.train.networks.checkpoint import load_checkpoint

CORES = 2
SEEDS = (1, 2, 3)
# Steps and windows in each, for twelve minutes of one core of an AMD Zen 5. A window
# costs the ResNets fifteen times as much: with fewer in a step, they learn more in the
# same time.
BUDGETS = {"split": (3500, 256), "dense": (2100, 32), "seed": (2100, 32)}
CONFIGURATIONS = {"split": "split", "dense": "dense", "seed": "dense"}
# One small validation at the end, since the last weights are those that count.
VALIDATION = {
    "length": 1024,
    "slides": 20,
    "injections": 100,
    "windows": 2000,
}


# All noise and glitches of a full validation, signals of the SNR that is compared, and
# next to nothing of the rest.
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
    """Train one network, or go on with its training."""
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
        # In between the steps: the time of both is the training's.
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
    """Measure what one network finds, in a process of its own."""
    if not (folder / FIGURES).exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.networks", "--judge", str(folder)]
        subprocess.run(command, check=True, env=environment)


def judge_here(folder: Path) -> None:
    """Measure what the comparison shows of one network, and no more."""
    torch.set_num_threads(1)
    network, details = load_checkpoint(folder / NETWORK)
    result = validate(network, **JUDGEMENT)
    write_report(folder / FIGURES, {"checkpoint": details} | result)


def main(arguments: Sequence[str]) -> None:
    """Train, judge and compare."""
    if arguments[0] == "--judge":
        judge_here(Path(arguments[1]))
        return
    whole = Path(arguments[0])
    # The dearest first, so that no core is idle at the end.
    runs = [(model, seed) for model in ("seed", "dense", "split") for seed in SEEDS]

    def one(run: tuple[str, int]) -> Path:
        folder = whole / f"{run[0]}-{run[1]}"
        train(folder, *run)
        judge(folder)
        return folder

    with ThreadPoolExecutor(CORES) as pool:
        folders = list(pool.map(one, runs))
    chirpwatch("train", "compare", *folders, "--out", whole / "comparison.md")
    print((whole / "comparison.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
