import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from chirpwatch.export.graph import Graph
from chirpwatch.export.median import (
    sliding_medians,
    unseen,
)

BINS = 5


def medians(rows: np.ndarray, group_size: int, groups: int) -> np.ndarray:
    graph = Graph()
    model = graph.model(
        "medians",
        inputs=[("rows", TensorProto.FLOAT, ["count", BINS])],
        outputs=[
            (
                "medians",
                sliding_medians(graph, "rows", BINS, group_size, groups),
                TensorProto.FLOAT,
                ["windows", BINS],
            )
        ],
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"rows": rows})
    return found


@pytest.mark.parametrize("group_size", [2, 6, 8])
@pytest.mark.parametrize("groups", [1, 2, 3, 5, 7, 8])
@pytest.mark.parametrize("windows", [1, 4])
def test_medians_equal_numpys_bit_for_bit(
    group_size: int, groups: int, windows: int
) -> None:
    rng = np.random.default_rng(group_size * groups)
    size = (windows + groups - 1) * group_size
    rows = rng.exponential(size=(size, BINS)).astype(np.float32)
    rows[size // 2 :, 0] = 1  # ties
    rows[::3, 1] = np.inf
    found = medians(rows, group_size, groups)
    for window, median in enumerate(found):
        begin = window * group_size
        members = rows[begin + 1 : begin + group_size * groups]
        assert (median == np.median(members, axis=0)).all()


@pytest.mark.parametrize("group_size", [2, 8])
def test_placeholders_do_not_change_the_median(group_size: int) -> None:
    """A sequence's first windows have fewer periodograms, and placeholders."""
    groups, windows = 8, 9
    rng = np.random.default_rng(1)
    count = windows * group_size - 1
    seen = rng.exponential(size=(count, BINS)).astype(np.float32)
    before = np.tile(unseen(group_size), groups)[: (groups - 1) * group_size + 1, None]
    rows = np.concatenate([np.repeat(before, BINS, axis=1), seen])
    found = medians(rows, group_size, groups)
    for window, median in enumerate(found):
        stop = (window + 1) * group_size - 1
        members = seen[max(0, stop - group_size * groups + 1) : stop]
        assert (median == np.median(members, axis=0)).all()
