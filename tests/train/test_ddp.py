"""A training distributed over several processes."""

import csv
import json
import subprocess
import time
from pathlib import Path

import lightning
import torch

from chirpwatch.train.networks.checkpoint import load_checkpoint
from tests.networks import TINY
from tests.train.process import ENVIRONMENT, fit_command


class Witness(lightning.Callback):
    """Records each process's windows, weights and CPU time."""

    def __init__(self, folder: str) -> None:
        self.folder, self.windows = Path(folder), []
        self.begin = 0.0

    def on_train_start(self, trainer, pl_module) -> None:
        self.begin = time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, index) -> None:
        windows, labels, *_ = batch
        self.windows.append([len(windows), float(labels.sum()), float(windows.sum())])

    def on_train_end(self, trainer, pl_module) -> None:
        parameters = torch.cat([x.flatten() for x in pl_module.network.parameters()])
        result = {
            "windows": self.windows,
            "weights": parameters.tolist(),
            "cpu_time": time.process_time() - self.begin,
        }
        path = self.folder / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps(result))


def test_two_processes_share_each_batch_and_agree_on_the_weights(tmp_path) -> None:
    folder = tmp_path / "run"
    witness = {
        "class_path": "tests.train.test_ddp.Witness",
        "init_args": {"folder": str(tmp_path)},
    }
    arguments = (
        *(*TINY, "--steps=4", "--trainer.log_every_n_steps=1"),
        *("--trainer.devices=2", "--trainer.strategy=ddp"),
        f"--trainer.callbacks={json.dumps([witness])}",
    )
    result = subprocess.run(
        fit_command(folder, "split", arguments),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    one, two = (
        json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)
    )
    # 4 steps of 32 windows in total; half of each process's windows have a signal.
    for rank in (one, two):
        assert [row[:2] for row in rank["windows"]] == [[16, 8]] * 4
    assert not {row[2] for row in one["windows"]} & {row[2] for row in two["windows"]}
    assert one["weights"] == two["weights"]
    network, details = load_checkpoint(folder / "network.ckpt")
    # CPU time of both processes, including the time before the first step.
    assert details["cpu_time_length"] > one["cpu_time"] + two["cpu_time"] - 0.2
    trained = torch.cat([x.flatten() for x in network.parameters()])
    assert trained.equal(torch.tensor(one["weights"]))
    with open(folder / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]
    assert result.stdout.count("step 4: ") == 1
