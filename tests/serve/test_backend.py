"""Our ONNX Runtime backend handles a sequence's state as NVIDIA's native backend does.

The expected behaviour is from the sources of the server's core and native backend; see
``serve/backends/onnxruntime/model.py``.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from chirpwatch.serve.embedded import TritonServer

INITIAL = 100.0
"""Initial value of the sum."""

CONFIGURATION = """
name: "sum"
backend: "onnxruntime"
input { name: "x" data_type: TYPE_FP32 dims: -1 }
output { name: "sum" data_type: TYPE_FP32 dims: 1 }
output { name: "doubled" data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 64 }
  state {
    input_name: "state"
    output_name: "new_state"
    data_type: TYPE_FP32
    dims: 1
    initial_state { name: "begin" data_type: TYPE_FP32 dims: 1 data_file: "begin" }
  }
}
"""


def summing() -> onnx.ModelProto:
    """Model that sums a sequence's values; it fails for an odd number of them."""
    nodes = [
        helper.make_node("Reshape", ["x", "pairs"], ["reshaped"], "reshape"),
        helper.make_node("ReduceSum", ["reshaped"], ["own"], "reduce", keepdims=0),
        helper.make_node("Add", ["state", "own"], ["sum"], "add"),
        helper.make_node("Add", ["sum", "sum"], ["doubled"], "double"),
        helper.make_node("Identity", ["sum"], ["new_state"], "keep"),
    ]

    def tensor(name: str, size: int | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [size])

    graph = helper.make_graph(
        nodes,
        "sum",
        [tensor("x", None), tensor("state", 1)],
        [tensor(name, 1) for name in ("sum", "doubled", "new_state")],
        [helper.make_tensor("pairs", TensorProto.INT64, [2], [2, -1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[grpc.InferenceServerClient]:
    folder = tmp_path_factory.mktemp("sum") / "sum"
    (folder / "1").mkdir(parents=True)
    (folder / "initial_state").mkdir()
    text_format.Parse(CONFIGURATION, pb.ModelConfig())
    (folder / "config.pbtxt").write_text(CONFIGURATION)
    np.array([INITIAL], np.float32).tofile(folder / "initial_state" / "begin")
    onnx.save(summing(), Path(folder / "1" / "model.onnx"))
    with TritonServer(folder.parent) as server:
        client = grpc.InferenceServerClient(server.address)
        yield client
        client.close()


def send(
    client: grpc.InferenceServerClient,
    sequence: int,
    values: list[float],
    start: bool = False,
    end: bool = False,
    outputs: tuple[str, ...] = ("sum",),
) -> dict[str, float]:
    """Send values of a sequence; return the requested outputs."""
    inputs = [grpc.InferInput("x", [len(values)], "FP32")]
    inputs[0].set_data_from_numpy(np.array(values, np.float32))
    answer = client.infer(
        "sum",
        inputs,
        outputs=[grpc.InferRequestedOutput(name) for name in outputs],
        sequence_id=sequence,
        sequence_start=start,
        sequence_end=end,
    )
    names = {output.name for output in answer.get_response().outputs}
    assert names == set(outputs)
    return {name: float(answer.as_numpy(name)[0]) for name in outputs}


WHOLE, ODD = [1.0, 2.0], [1.0, 2.0, 4.0]


def fail(client: grpc.InferenceServerClient, sequence: int, **flags: bool) -> None:
    with pytest.raises(InferenceServerException, match="Reshape") as caught:
        send(client, sequence, ODD, **flags)
    assert caught.value.status() == "StatusCode.INTERNAL"


def test_a_failed_request_does_not_change_the_state(
    client: grpc.InferenceServerClient,
) -> None:
    assert send(client, 1, WHOLE, start=True) == {"sum": INITIAL + 3}
    fail(client, 1)
    fail(client, 1)
    assert send(client, 1, WHOLE) == {"sum": INITIAL + 6}
    # Only requested outputs are answered; the state is updated all the same.
    assert send(client, 1, WHOLE, outputs=("doubled",)) == {"doubled": 2 * INITIAL + 18}
    assert send(client, 1, WHOLE, end=True, outputs=("sum", "doubled")) == {
        "sum": INITIAL + 12,
        "doubled": 2 * INITIAL + 24,
    }


def test_a_failed_start_leaves_the_initial_state(
    client: grpc.InferenceServerClient,
) -> None:
    fail(client, 2, start=True)
    assert send(client, 2, WHOLE) == {"sum": INITIAL + 3}
    # Also for a sequence that had started before.
    fail(client, 2, start=True)
    fail(client, 2)
    assert send(client, 2, WHOLE, end=True) == {"sum": INITIAL + 3}


def test_a_failed_end_still_ends_the_sequence(
    client: grpc.InferenceServerClient,
) -> None:
    for flags in ({"start": True, "end": True}, {"end": True}):
        if "start" not in flags:
            send(client, 3, WHOLE, start=True)
        fail(client, 3, **flags)
        with pytest.raises(InferenceServerException, match="specify the START flag"):
            send(client, 3, WHOLE)


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([11, 12]),
        st.sampled_from([WHOLE, [8.0, 16.0], ODD]),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=12,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(REQUESTS)
def test_any_requests_are_answered_as_by_the_native_backend(
    client: grpc.InferenceServerClient,
    requests: list[tuple[int, list[float], bool, bool]],
) -> None:
    for sequence in (11, 12):
        send(client, sequence, WHOLE, start=True, end=True)
    states: dict[int, float] = {}
    for sequence, values, start, end in requests:
        if start:
            states[sequence] = INITIAL
        if sequence not in states:
            reason: str | None = "must specify the START flag"
        else:
            reason = "Reshape" if len(values) % 2 else None
        if reason is not None:
            with pytest.raises(InferenceServerException, match=reason):
                send(client, sequence, values, start, end)
        else:
            states[sequence] += sum(values)
            answer = send(client, sequence, values, start, end)
            assert answer == {"sum": states[sequence]}
        if end:
            states.pop(sequence, None)
