"""What a Triton server says of the models it serves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from chirpwatch.errors import (
    GeometryError,
    ModelError,
    ServerError,
)
from chirpwatch.geometry import Geometry

ANSWER_TIMEOUT = 10
"""Longest wait for what the server says of itself, s."""
AWAY = {
    "StatusCode.UNAVAILABLE",
    "StatusCode.DEADLINE_EXCEEDED",
    "StatusCode.CANCELLED",
}
"""What gRPC says of a server that is gone or hangs, and not of what it was asked."""
# A dead server must be noticed though nothing is sent.
KEEPALIVE = grpc.KeepAliveOptions(keepalive_time_ms=10_000, keepalive_timeout_ms=10_000)


@dataclass(frozen=True)
class Served:
    """What a server says of the models that it serves.

    Attributes:
        geometry: The analysis.
        model: Digest of the models.
        longest_delay: The longest by which the right edge of a score's strain can lag
            the merger that the score tells, s.
    """

    geometry: Geometry
    model: str
    longest_delay: float


def describe(address: str, name: str) -> Served:
    """Ask a server about the models that it serves.

    Args:
        address: ``host:port`` of the server's gRPC service.
        name: The ensemble that is wanted.

    Raises:
        ServerError: There is no server at that address.
        ModelError: It serves no such ensemble, or one that does not say its geometry
            or its longest delay.
    """
    client = grpc.InferenceServerClient(address)
    try:
        client.is_server_live(client_timeout=ANSWER_TIMEOUT)
    except InferenceServerException as error:
        client.close()
        raise ServerError(
            f"no Triton server at {address}: {error.message()}; start one with "
            "'chirpwatch serve'"
        ) from None
    try:
        config = client.get_model_config(name, client_timeout=ANSWER_TIMEOUT).config
    except InferenceServerException as error:
        if error.status() in AWAY:
            # It ended since it said that it is live.
            raise ServerError(
                f"the Triton server at {address}: {error.message()}"
            ) from None
        raise ModelError(
            f"the Triton server at {address} serves no model '{name}': "
            f"{error.message()}"
        ) from None
    finally:
        client.close()
    try:
        geometry = Geometry.from_json(config.parameters["geometry"].string_value)
    except GeometryError as error:
        raise ModelError(f"the model served at {address}: {error}") from None
    delay = config.parameters["longest_delay"].string_value
    try:
        longest_delay = float(delay)
    except ValueError:
        raise ModelError(
            f"the model served at {address}: expected a time as its parameter "
            f"longest_delay, found {delay!r}; export its network anew with "
            "'chirpwatch export'"
        ) from None
    return Served(geometry, config.parameters["model"].string_value, longest_delay)


def other_model(address: str, first: str, model: str) -> ModelError:
    """The error of a server that changed its model while a run was under way."""
    return ModelError(
        f"the server at {address} began with model {first} and now serves {model}; "
        "results of two models do not mix"
    )


@dataclass(frozen=True)
class Output:
    """An output that a request asks for.

    Attributes:
        name: Its name.
        dtype: NumPy data type of its elements.
        shape: Its shape, as the request determines it.
    """

    name: str
    dtype: type
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return _tensor(self.name, np.dtype(self.dtype), self.shape)


def take_outputs(
    result: grpc.InferResult, outputs: Iterable[Output], request: str
) -> list[NDArray[Any]]:
    """Take the outputs out of the answer to a request.

    A server that loses a model's process while a request is under way may answer
    without an error, and without outputs.

    Args:
        result: The answer.
        outputs: What was asked for.
        request: What was sent where, for the error.

    Returns:
        The outputs in the order asked for.

    Raises:
        ServerError: The answer lacks an output, or has one of another type or shape.
    """
    arrays = []
    for output in outputs:
        try:
            array = result.as_numpy(output.name)
        except (TypeError, ValueError) as error:
            # Its bytes do not make the shape that the answer states.
            raise ServerError(
                f"{request}: expected the output {output}, found one that cannot be "
                f"read ({error})"
            ) from None
        if array is None:
            raise ServerError(f"{request}: the answer lacks the output {output}")
        if array.dtype != output.dtype or array.shape != output.shape:
            found = _tensor(output.name, array.dtype, array.shape)
            raise ServerError(f"{request}: expected the output {output}, found {found}")
        arrays.append(array)
    return arrays


def _tensor(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{name!r} ({dtype} {list(shape)})"
