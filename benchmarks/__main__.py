"""Time chirpwatch against the reference method: ``make bench``.

Both run alternately on the same cores. Writes ``results.json``.
"""

import json
import os
import platform
from pathlib import Path

import torch

from benchmarks import replay, timeslides, training
from benchmarks.seed import CORES, matrix_product_rate

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Run all benchmarks; print and write the figures."""
    result = {
        **replay.measure(),
        **timeslides.measure(),
        **training.measure(),
        "matrix_product_gflops": matrix_product_rate(),
        "cores": CORES,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
