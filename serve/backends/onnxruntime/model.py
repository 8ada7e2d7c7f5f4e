"""Python-based Triton backend for ONNX models, for a Triton without the native one.

It is installed under the native backend's name, so the same model repository works with
both. It refuses what the native backend refuses: a configured input, output, sequence
control or state that the ONNX model lacks, or that has another type or shape there. So
a model that loads here also loads there.

The server passes the implicit state to a Python-based backend as an input, but cannot
take the new state back. So this backend keeps the states itself, by correlation id,
from START to END, or until a sequence has been idle for twice the configured time.

The states change as in the native backend. START replaces the state by the initial one
before the model runs, whether or not the server has the sequence. The new state is
stored only if the request succeeds. After a failure, the sequence continues from the
state before that request; if the request was the START, that is the initial state. END
ends the sequence even if its request fails. The server itself refuses a request without
START for a sequence that it does not have.

Source: ``UpdateImplicitState`` in src/sequence_batch_scheduler/
sequence_batch_scheduler.cc of triton-inference-server/core, for the initial state;
``ReadOutputTensors`` in src/onnxruntime.cc of
triton-inference-server/onnxruntime_backend, for its update after the model has run.
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
    """Check that a model configuration matches the ONNX model.

    These are the native backend's checks, and two more: there must be at most one
    state, and it must have an initial state. The native backend accepts configurations
    that break these rules, and then gives wrong scores.

    Args:
        config: The model configuration, as Triton passes it.
        inputs: Type and shape of each of the ONNX model's inputs, by name.
        outputs: Type and shape of each of its outputs, by name.

    Raises:
        ValueError: The configuration does not match; the message names the tensor.
    """
    batched = config["max_batch_size"] > 0
    sequence = config.get("sequence_batching", {})
    states = sequence.get("state", [])
    if len(states) > 1:
        # The server pairs a state's input and output by the order of their names.
        raise ValueError(
            f"expected at most one state, found {len(states)}: the server may exchange "
            "several states"
        )
    for state in states:
        if not state.get("initial_state"):
            raise ValueError(
                f"state '{state['input_name']}': expected an initial_state, found "
                "none: the state would start as uninitialized memory"
            )
    missing_controls = [
        control["name"]
        for control in sequence.get("control_input", [])
        if control["name"] not in inputs
    ]
    if missing_controls:
        raise ValueError(
            f"the ONNX model has no sequence control input {missing_controls[0]}"
        )
    configured_inputs = [(i["name"], i) for i in config["input"]]
    configured_inputs += [(s["input_name"], s) for s in states]
    configured_outputs = [(o["name"], o) for o in config["output"]]
    configured_outputs += [(s["output_name"], s) for s in states]
    control_names = {c["name"] for c in sequence.get("control_input", [])}
    for kind, configured, in_model in (
        ("input", configured_inputs, inputs),
        ("output", configured_outputs, outputs),
    ):
        unknown = [name for name, _ in configured if name not in in_model]
        if unknown:
            raise ValueError(
                f"unexpected inference {kind} '{unknown[0]}', the ONNX model has: "
                f"{', '.join(in_model)}"
            )
        for name, tensor in configured:
            element, shape = in_model[name]
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
        if name not in dict(configured_inputs) and name not in control_names
    ]
    if missing:
        raise ValueError(f"the ONNX model's input '{missing[0]}' is not configured")


class TritonPythonModel:
    """One instance of a model, in its own process; Triton calls its methods."""

    def initialize(self, args):
        """Load the ONNX model and check its configuration.

        Raises:
            triton.TritonModelException: The model cannot be loaded, or does not match
                its configuration.
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
        # By correlation id: time of the last request, and the values of the states.
        self.sequences = {}

    def execute(self, requests):
        """Run the model for each request; an error fails only its own request."""
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
        requested = list(request.requested_output_names())
        if not self.states:
            values = self.session.run(requested, feed, self.run_options)
            return _response(requested, values)
        sequence, flags = request.correlation_id(), request.flags()
        now = time.monotonic()
        if flags & START:
            # Copied, as the server reuses the request's memory afterwards.
            state = [
                triton.get_input_tensor_by_name(request, name).as_numpy().copy()
                for name, _ in self.states
            ]
        elif sequence in self.sequences:
            _, state = self.sequences[sequence]
        else:
            raise ValueError(
                f"sequence {sequence} has no state here; start it with START"
            )
        # This precedes the model's run, so that START and END hold even if it fails.
        if flags & END:
            self.sequences.pop(sequence, None)
        else:
            self.sequences[sequence] = now, state
        for other, (last_used, _) in list(self.sequences.items()):
            # Twice the server's own time-out, so that the server drops it first.
            if now - last_used > 2 * self.idle_length:
                del self.sequences[other]
        feed.update(zip((name for name, _ in self.states), state, strict=True))
        names = requested + [output for _, output in self.states]
        values = self.session.run(names, feed, self.run_options)
        if not flags & END:
            self.sequences[sequence] = now, values[len(requested) :]
        return _response(requested, values[: len(requested)])


def _response(names, values):
    return triton.InferenceResponse(
        [triton.Tensor(name, value) for name, value in zip(names, values, strict=True)]
    )
