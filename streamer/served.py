"""What a Triton server says of the models it serves."""

from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from chirpwatch.errors import GeometryError, ModelError, ServerError
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


def describe(address: str, name: str) -> tuple[Geometry, str]:
    """Ask a server for the geometry and the digest of the models it serves.

    Args:
        address: ``host:port`` of the server's gRPC service.
        name: The ensemble that is wanted.

    Raises:
        ServerError: There is no server at that address.
        ModelError: It serves no such ensemble, or one that says no geometry.
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
    return geometry, config.parameters["model"].string_value
