"""Transforms as matrix products against NumPy's."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from chirpwatch.export import fourier
from chirpwatch.export.graph import (
    Graph,
    Value,
)

SIZES = [2, 6, 62, 1000, 2048, 4096, 6000]


def run(value: Value, graph: Graph, size: int, x: np.ndarray) -> np.ndarray:
    model = graph.model(
        "transform",
        inputs=[("x", TensorProto.DOUBLE, ["rows", size])],
        outputs=[("y", value, TensorProto.DOUBLE, ["rows", "bins"])],
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": x})
    return found


@pytest.mark.parametrize("size", SIZES)
def test_power_is_that_of_each_bin(size: int) -> None:
    x = np.random.default_rng(size).normal(size=(3, size))
    graph = Graph()
    found = run(fourier.power(graph, "x", size), graph, size, x)
    expected = np.abs(np.fft.rfft(x)) ** 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * expected.max())


@pytest.mark.parametrize("size", SIZES)
def test_even_data_have_a_real_transform(size: int) -> None:
    half = np.random.default_rng(size).normal(size=(2, size // 2 + 1))
    x = np.concatenate([half, half[:, -2:0:-1]], axis=1)
    lags = size // 2 + 1
    graph = Graph()
    found = run(fourier.cosine_sums(graph, "x", size, lags), graph, size, x)
    expected = np.fft.fft(x).real[:, :lags]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)
