import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from export.graph import Graph
from export.median import median


@pytest.mark.parametrize("segments", [1, 7, 63, 65])
def test_the_network_gives_the_median_to_the_last_bit(segments: int) -> None:
    graph = Graph()
    graph_median = median(graph, "rows", graph.size("rows", 1), segments)
    model = graph.model(
        "median",
        inputs=[("rows", TensorProto.FLOAT, [2, "count", 5])],
        outputs=[("median", graph_median, TensorProto.FLOAT, [2, 5])],
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(segments)
    for count in range(1, segments + 1, 2):
        rows = rng.exponential(size=(2, count, 5)).astype(np.float32)
        rows[:, count // 2 :, 0] = 1  # ties
        (found,) = session.run(None, {"rows": rows})
        assert (found == np.median(rows, axis=1)).all()
