"""Train the shipped network on a GPU: ``python -m benchmarks.gpu_training FOLDER``.

Runs ``chirpwatch train fit --config matched``, with more steps and a larger stock than
the configuration, for several seeds in turn, each in its own process; then
``chirpwatch train validate --quick`` for each, in parallel on the CPU. Writes
``FOLDER/seeds.json`` and ``.md``: times, peak memory and efficiency of each seed. After
an interruption, the same command resumes.

Every key of the configuration is an option, such as ``--model.learning_rate 0.002``.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.markdown import lay_out
from chirpwatch.atomic import replacing
from chirpwatch.process import process_pool
from chirpwatch.train.evaluation.report import (
    LOG,
    NETWORK,
    RESULTS,
    read_log,
    read_results,
)
from chirpwatch.train.evaluation.tables import NOT_MEASURED
from chirpwatch.train.evaluation.thresholds import MASSES
from chirpwatch.train.fitting.fit import fit

CONFIGURATION = "matched"
STEPS, STOCK_BATCHES = 6000, 960
"""About four times the configuration's; the stock takes 7.6 GB during the training."""

SEEDS = (1, 2, 3)
TRAINING = "training.json"
SNR, RATE = 8.0, "0.0001"
LOGGED = {"valid_found_hour": "one an hour", "valid_found_day": "one a day"}


def check_accelerator(accelerator: str) -> None:
    """Check that PyTorch has a GPU if one was requested.

    Raises:
        click.UsageError: It has none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise click.UsageError(
            "expected a GPU that PyTorch can use, found none "
            f"(PyTorch {torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"
            "); run this on a machine with a GPU, or choose --accelerator cpu"
        )


def train_one(
    folder: Path, seed: int, accelerator: str, arguments: Sequence[str]
) -> dict[str, Any]:
    """Train one network, or resume its training, in this process.

    Args:
        folder: Folder of the training run.
        seed: Seed of weights and windows.
        accelerator: ``gpu`` or ``cpu``.
        arguments: Options of the configuration.

    Returns:
        ``device``; ``wall_length`` and ``cpu_length``, s; ``gpu_peak``, PyTorch's peak
        allocation on the GPU (None without one), and ``host_peak``, the process's peak
        resident memory, GiB.
    """
    wall, cpu, on_gpu = time.perf_counter(), time.process_time(), accelerator == "gpu"
    if (folder / "checkpoints" / "last.ckpt").exists():
        fit(folder, resume=True)
    else:
        keys = ("--trainer.accelerator", accelerator, *arguments)
        fit(folder, [CONFIGURATION], seed, arguments=keys)
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "processor",
        "wall_length": time.perf_counter() - wall,
        "cpu_length": time.process_time() - cpu,
        "gpu_peak": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        # In KiB on Linux, see getrusage(2).
        "host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def train_seeds(
    folders: Mapping[int, Path], accelerator: str, arguments: Sequence[str]
) -> None:
    """Train the missing networks, one after the other."""
    for seed, folder in folders.items():
        if (folder / TRAINING).exists():
            continue
        # A process for each, so that its peak memory is measured separately.
        with process_pool(1) as pool:
            task = pool.submit(train_one, folder, seed, accelerator, arguments)
            result = task.result()
        with replacing(folder / TRAINING) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")


def judge(folder: Path) -> None:
    """Validate one network on one core, unless that was done before."""
    if (folder / RESULTS).exists():
        return
    command = ["train", "validate", str(folder / NETWORK), str(folder / RESULTS)]
    subprocess.run(
        [sys.executable, "-m", "chirpwatch", *command, "--quick"],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def summary(folder: Path) -> dict[str, Any]:
    """Collect one seed's figures from its training, log and validation, if any."""
    result: dict[str, Any] = json.loads((folder / TRAINING).read_text())
    log = read_log(folder / LOG)
    assert log is not None
    for name in ("loss", "loading_share", *LOGGED):
        column = log.get(name)
        values = [] if column is None else [x for x in column.tolist() if x == x]
        result[name] = values[-1] if values else None
    figures = read_results(folder / RESULTS)
    result["found"] = None
    if figures:
        result["found"] = {
            kind: [
                entry["found"].get(RATE)
                for entry in figures["found"][kind]
                if entry["snr"] == SNR
            ]
            for kind in ("gaussian", "glitches")
        }
    return result


def table(seeds: Mapping[int, Mapping[str, Any]]) -> str:
    """Format the seeds' figures, mean and standard deviation as Markdown."""
    pairs = [f"{mass_1:g}, {mass_2:g}" for mass_1, mass_2 in MASSES]
    costs = {
        "training, minutes": lambda figures: figures["wall_length"] / 60,
        "CPU, minutes": lambda figures: figures["cpu_length"] / 60,
        "GPU memory, GiB": lambda figures: figures["gpu_peak"],
        "host memory, GiB": lambda figures: figures["host_peak"],
        "waiting for windows, %": lambda figures: _percent(figures["loading_share"]),
        **{f"{words}, %": _logged_percent(name) for name, words in LOGGED.items()},
    }
    rows = {
        seed: [cost(figures) for cost in costs.values()]
        for seed, figures in seeds.items()
    }
    text = _rows(["seed", *costs], rows)
    for kind, words in (
        ("gaussian", "Gaussian noise"),
        ("glitches", "10 % with a glitch"),
    ):
        efficiencies = {
            seed: [_percent(share) for share in figures["found"][kind]]
            for seed, figures in seeds.items()
            if figures["found"]
        }
        if efficiencies:
            text += f"\nFound at SNR {SNR:g} and {RATE} in {words}, %:\n\n"
            text += _rows(["seed", *pairs], efficiencies)
    return text


def _logged_percent(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda figures: _percent(figures[name])


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _rows(heads: Sequence[str], rows: Mapping[int, Sequence[float | None]]) -> str:
    """Table of a row for each seed, and one of means and standard deviations."""
    lines = [
        [str(seed), *(NOT_MEASURED if x is None else f"{x:.1f}" for x in values)]
        for seed, values in rows.items()
    ]
    cells = ["mean"]
    for column in zip(*rows.values(), strict=True):
        values = [x for x in column if x is not None]
        cells.append(NOT_MEASURED)
        if len(values) == len(column) > 1:
            spread = statistics.stdev(values)
            cells[-1] = f"{statistics.mean(values):.1f} ± {spread:.1f}"
    return lay_out(heads, [*lines, cells])


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0),
    multiple=True,
    default=SEEDS,
    show_default=True,
    help="Seed of a training; repeat for several.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=STEPS,
    show_default=True,
    help="Training steps.",
)
@click.option(
    "--stock",
    type=click.IntRange(1),
    default=STOCK_BATCHES,
    show_default=True,
    help="Batches in the stock, whose frames are computed once.",
)
@click.option(
    "--accelerator",
    type=click.Choice(["gpu", "cpu"]),
    default="gpu",
    show_default=True,
    help="Device that trains.",
)
@click.option(
    "--judge/--no-judge",
    "judged",
    default=True,
    show_default=True,
    help="Whether to validate the networks, which takes minutes of a core each.",
)
@click.pass_context
def main(
    context: click.Context,
    folder: Path,
    seeds: tuple[int, ...],
    steps: int,
    stock: int,
    accelerator: str,
    judged: bool,
) -> None:
    """Train the shipped network with several seeds; write FOLDER/seeds.md.

    Every key of the configuration is an option.
    """
    check_accelerator(accelerator)
    arguments = [
        *("--steps", str(steps), "--validate_every", str(steps)),
        *("--data.stock_batches", str(stock), "--figures", "none"),
        *context.args,
    ]
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    train_seeds(folders, accelerator, arguments)
    if judged:
        # Each needs up to 2 GB.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(judge, folders.values()))
    result = {seed: summary(each) for seed, each in folders.items()}
    text = (
        f"# Seeds\n\n`{CONFIGURATION}`, {steps:,} steps, a stock of {stock:,} batches, "
        f"on {next(iter(result.values()))['device']}.\n\n{table(result)}"
    )
    settings = {"accelerator": accelerator, "arguments": arguments}
    for name, content in (
        ("seeds.json", json.dumps(settings | {"seeds": result}, indent=2) + "\n"),
        ("seeds.md", text),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(content)
    click.echo(text)


if __name__ == "__main__":
    main()
