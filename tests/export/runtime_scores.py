"""Scores strain with the ONNX Runtime that is first on the path.

    python -m tests.export.runtime_scores REPOSITORY STRAIN RESULT

Loads every model of the repository at every level of graph optimization. Scores each
strain with the merged models at each level, and with the ensemble's models in sequence
at the servers' level. STRAIN is an .npz file of arrays [1, ifos, size]. RESULT is the
.npz file to write, with arrays named `{strain} {level} {output}`.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
REQUEST_SIZE = 7 * 2048
OUTPUTS = ["score", "delay", "valid"]
SHIFTS = np.array([[64], [-128], [200]])


def load(path: Path, level: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = LEVELS[level]
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )


def run(session: onnxruntime.InferenceSession, made: dict[str, np.ndarray]) -> None:
    """Run a model on tensors by name, and add its outputs to them."""
    feed = {one.name: made[one.name] for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]
    made |= dict(zip(names, session.run(names, feed), strict=True))


def detect(
    sessions: list[onnxruntime.InferenceSession], strain: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores of a sequence; ``sessions`` are run one after the other."""
    ifos = strain.shape[1]
    state = np.zeros(1, np.float32)
    found: dict[str, list[np.ndarray]] = {name: [] for name in OUTPUTS}
    for begin in range(0, strain.shape[2] // 256 * 256, REQUEST_SIZE):
        piece = strain[..., begin : begin + REQUEST_SIZE]
        made = {
            "strain": piece[..., : piece.shape[2] // 256 * 256],
            "position": np.full(ifos, begin),
            "state": state,
        }
        for session in sessions:
            run(session, made)
        state = made["new_state"]
        for name in OUTPUTS:
            found[name].append(made[name])
    return {name: np.concatenate(pieces, axis=-1) for name, pieces in found.items()}


def main(repository: Path, strain_file: Path, result: Path) -> None:
    found: dict[str, np.ndarray] = {"version": np.array(onnxruntime.__version__)}
    strains = dict(np.load(strain_file))
    for level in LEVELS:
        sessions = {
            path.relative_to(repository).as_posix(): load(path, level)
            for path in sorted(repository.glob("*/1/*.onnx"))
        }
        steps = {"merged": ["detector"]}
        if level == "all":
            steps["wired"] = ["snapshotter", "preprocessor", "frontend", "head"]
        for name, strain in strains.items():
            for kind, models in steps.items():
                chain = [sessions[f"{model}/1/model.onnx"] for model in models]
                for output, values in detect(chain, strain).items():
                    found[f"{name}, {kind}, {level}, {output}"] = values
            made = {"strain": strain[..., : 32 * 2048], "shifts": SHIFTS}
            for model in ("stretch", "preprocessor", "frontend", "slides"):
                run(sessions[f"{model}/1/model.onnx"], made)
            for output in OUTPUTS:
                found[f"{name}, timeslides, {level}, {output}"] = made[output]
    np.savez(result, **found)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
