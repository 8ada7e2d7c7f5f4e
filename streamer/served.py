"""Reads the metadata of served models, and verifies their responses."""

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

METADATA_TIMEOUT = 10
"""Longest wait for the server's metadata, s."""

UNREACHABLE = {
    "StatusCode.UNAVAILABLE",
    "StatusCode.DEADLINE_EXCEEDED",
    "StatusCode.CANCELLED",
}
"""gRPC status codes that show a dead or hanging server, not a bad request."""

# Keep-alive: a dead server must be noticed even while no request is sent.
KEEPALIVE = grpc.KeepAliveOptions(keepalive_time_ms=10_000, keepalive_timeout_ms=10_000)


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of a served ensemble.

    Attributes:
        geometry: The geometry of the analysis.
        model: Digest of the models.
        longest_delay: Longest time by which a score's right edge can lag the estimated
            merger, s.
    """

    geometry: Geometry
    model: str
    longest_delay: float


def describe(address: str, name: str) -> ModelMetadata:
    """Fetch the metadata of a served ensemble.

    Args:
        address: ``host:port`` of the server's gRPC service.
        name: Name of the ensemble.

    Raises:
        ServerError: No server answers at the address.
        ModelError: It does not serve the ensemble, or the ensemble publishes no
            geometry or no longest delay.
    """
    client = grpc.InferenceServerClient(address)
    try:
        client.is_server_live(client_timeout=METADATA_TIMEOUT)
    except InferenceServerException as error:
        client.close()
        raise ServerError(
            f"no Triton server at {address}: {error.message()}; start one with "
            "'chirpwatch serve'"
        ) from None
    try:
        config = client.get_model_config(name, client_timeout=METADATA_TIMEOUT).config
    except InferenceServerException as error:
        if error.status() in UNREACHABLE:
            # The server ended after it reported to be live.
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
            f"the model served at {address}: expected a time in s as its "
            f"parameter longest_delay, found {delay!r}; export its network again with "
            "'chirpwatch export'"
        ) from None
    return ModelMetadata(
        geometry, config.parameters["model"].string_value, longest_delay
    )


def other_model(address: str, first: str, model: str) -> ModelError:
    """Make the error for a server whose model changed during a run."""
    return ModelError(
        f"the server at {address} began with model {first} and now serves {model}; "
        "results of two models do not mix"
    )


@dataclass(frozen=True)
class Output:
    """An expected output of a request.

    Attributes:
        name: Name.
        dtype: NumPy data type.
        shape: Shape, which follows from the request.
    """

    name: str
    dtype: type
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return _tensor(self.name, np.dtype(self.dtype), self.shape)


def take_outputs(
    result: grpc.InferResult, outputs: Iterable[Output], request: str
) -> list[NDArray[Any]]:
    """Extract the outputs from a response, and verify them.

    If a model's process dies during a request, the server may respond without an error
    and without outputs.

    Args:
        result: The response.
        outputs: The expected outputs.
        request: Description of the request, for errors.

    Returns:
        The outputs, in the same order.

    Raises:
        ServerError: An output is missing, or has another type or shape.
    """
    arrays = []
    for output in outputs:
        try:
            array = result.as_numpy(output.name)
        except (TypeError, ValueError) as error:
            # The number of bytes does not match the shape that the response states.
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
