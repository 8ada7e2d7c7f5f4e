"""ONNX Runtime for a Triton without its native backend, as a Python-based backend.

Installed under the native backend's name, so that one model repository serves both. It
refuses what the native backend refuses: a configured input, output, sequence control or
state that the ONNX model does not have, or has with another type or shape. What loads
here loads there.

The server hands a declared state to a Python-based backend as an input but cannot take
the new one back; so the states live here, by correlation id, from START to END or until
the sequence has been idle for twice as long as the configuration allows.

They change as with the native backend. START replaces the state by the initial one,
before the model runs, whether or not the server knows the sequence. The new state takes
its place only if the request succeeds: after a failure the sequence goes on from the
state before that request, which is the initial one if the request was the START. END
ends the sequence, even if the request fails. A request without START for a sequence
that the server does not know is refused by the server itself.

Source: ``UpdateImplicitState`` in src/sequence_batch_scheduler/
sequence_batch_scheduler.cc of triton-inference-server/core, where a state begins;
``ReadOutputTensors`` in src/onnxruntime.cc of
triton-inference-server/onnxruntime_backend, which updates it once the model has run.
"""

import json
import time
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton

SHRINKAGE = "memory.enable_memory_arena_shrinkage"
START = 1
END = 2
ONNX_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
}


def check(config, inputs, outputs):
    """Hold a model configuration against an ONNX model, as the native backend does.

    Beyond that, a state must be the only one and be declared with its beginning: the
    native backend takes others, and gives wrong scores.

    Args:
        config: The model configuration, as Triton passes it.
        inputs: The ONNX model's inputs: for each name its type and shape.
        outputs: The ONNX model's outputs, alike.

    Raises:
        ValueError: They differ; says in what.
    """
    batched = config["max_batch_size"] > 0
    sequence = config.get("sequence_batching", {})
    states = sequence.get("state", [])
    if len(states) > 1:
        # The server pairs inputs with outputs by the order of their names.
        raise ValueError(
            f"expected one state, found {len(states)}: the server may exchange them"
        )
    for state in states:
        if not state.get("initial_state"):
            raise ValueError(
                f"state '{state['input_name']}' has no initial_state: it would begin "
                "as memory that nobody wrote"
            )
    controls = [
        control["name"]
        for control in sequence.get("control_input", [])
        if control["name"] not in inputs
    ]
    if controls:
        raise ValueError(f"the ONNX model has no sequence control input {controls[0]}")
    wanted_inputs = [(i["name"], i) for i in config["input"]]
    wanted_inputs += [(s["input_name"], s) for s in states]
    wanted_outputs = [(o["name"], o) for o in config["output"]]
    wanted_outputs += [(s["output_name"], s) for s in states]
    control_names = {c["name"] for c in sequence.get("control_input", [])}
    for kind, wanted, found in (
        ("input", wanted_inputs, inputs),
        ("output", wanted_outputs, outputs),
    ):
        unknown = [name for name, _ in wanted if name not in found]
        if unknown:
            raise ValueError(
                f"unexpected inference {kind} '{unknown[0]}', the ONNX model has: "
                f"{', '.join(found)}"
            )
        for name, tensor in wanted:
            element, shape = found[name]
            if ONNX_TYPES.get(tensor["data_type"]) != element:
                raise ValueError(
                    f"{kind} '{name}': configured as {tensor['data_type']}, the ONNX "
                    f"model has {element}"
                )
            dims = ([-1] if batched else []) + [int(d) for d in tensor["dims"]]
            model_dims = [d if isinstance(d, int) else -1 for d in shape]
            fits = len(dims) == len(model_dims) and all(
                m == -1 or m == d for d, m in zip(dims, model_dims, strict=True)
            )
            if not fits:
                raise ValueError(
                    f"{kind} '{name}': configured shape {dims} does not fit the ONNX "
                    f"model's {model_dims}"
                )
    missing = [
        name
        for name in inputs
        if name not in dict(wanted_inputs) and name not in control_names
    ]
    if missing:
        raise ValueError(f"the ONNX model's input '{missing[0]}' is not configured")


class TritonPythonModel:
    """One instance of one model, in a process of its own."""

    def initialize(self, args):
        """Load the ONNX model of this version and check it.

        Raises:
            triton.TritonModelException: It cannot be loaded, or does not fit.
        """
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        options = onnxruntime.SessionOptions()
        for parameter in ("intra_op_thread_count", "inter_op_thread_count"):
            value = config.get("parameters", {}).get(parameter, {}).get("string_value")
            if value is not None:
                setattr(
                    options,
                    parameter.replace("thread_count", "num_threads"),
                    int(value),
                )
        self.run_options = onnxruntime.RunOptions()
        shrinkage = config.get("parameters", {}).get(SHRINKAGE)
        if shrinkage is not None:
            self.run_options.add_run_config_entry(SHRINKAGE, shrinkage["string_value"])
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            check(
                config,
                {i.name: (i.type, i.shape) for i in self.session.get_inputs()},
                {o.name: (o.type, o.shape) for o in self.session.get_outputs()},
            )
        except Exception as error:
            raise triton.TritonModelException(f"{path}: {error}") from None
        sequence = config.get("sequence_batching", {})
        self.states = [
            (s["input_name"], s["output_name"]) for s in sequence.get("state", [])
        ]
        idle = int(sequence.get("max_sequence_idle_microseconds") or 1_000_000)
        self.idle_length = idle / 1e6
        self.outputs = [o["name"] for o in config["output"]]
        self.inputs = [i["name"] for i in config["input"]]
        self.inputs += [c["name"] for c in sequence.get("control_input", [])]
        self.kept = {}

    def execute(self, requests):
        """Answer each request; an error answers its own request alone."""
        responses = []
        for request in requests:
            try:
                responses.append(self._answer(request))
            except Exception as error:
                responses.append(
                    triton.InferenceResponse(error=triton.TritonError(str(error)))
                )
        return responses

    def _answer(self, request):
        feed = {
            name: triton.get_input_tensor_by_name(request, name).as_numpy()
            for name in self.inputs
        }
        wanted = list(request.requested_output_names())
        if not self.states:
            values = self.session.run(wanted, feed, self.run_options)
            return _response(wanted, values)
        sequence, flags = request.correlation_id(), request.flags()
        now = time.monotonic()
        if flags & START:
            # Copied, since the server takes the request's memory back.
            state = [
                triton.get_input_tensor_by_name(request, name).as_numpy().copy()
                for name, _ in self.states
            ]
        elif sequence in self.kept:
            _, state = self.kept[sequence]
        else:
            raise ValueError(
                f"sequence {sequence} has no state here: it must begin with START"
            )
        # Before the model runs: a failure changes neither state nor END.
        if flags & END:
            self.kept.pop(sequence, None)
        else:
            self.kept[sequence] = now, state
        for other, (used, _) in list(self.kept.items()):
            # Twice as long as the server keeps a sequence: it must forget it first.
            if now - used > 2 * self.idle_length:
                del self.kept[other]
        feed.update(zip((name for name, _ in self.states), state, strict=True))
        names = wanted + [output for _, output in self.states]
        values = self.session.run(names, feed, self.run_options)
        if not flags & END:
            self.kept[sequence] = now, values[len(wanted) :]
        return _response(wanted, values[: len(wanted)])


def _response(names, values):
    return triton.InferenceResponse(
        [triton.Tensor(name, value) for name, value in zip(names, values, strict=True)]
    )
