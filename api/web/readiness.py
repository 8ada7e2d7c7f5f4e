"""Readiness of the Triton server."""

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

MODEL = "detector"
TIMEOUT = 2.0
"""Longest wait for the server, s."""


def triton_fault(address: str) -> str | None:
    """Find out why a Triton server cannot score strain; None if it can.

    Args:
        address: The server's gRPC address, HOST:PORT.
    """
    try:
        client = InferenceServerClient(address)
        try:
            if not client.is_server_ready(client_timeout=TIMEOUT):
                return f"Triton at {address} is not ready"
            if not client.is_model_ready(MODEL, client_timeout=TIMEOUT):
                return f"Triton at {address} does not serve the model {MODEL!r}"
        finally:
            client.close()
    except InferenceServerException as error:
        return f"Triton at {address} does not answer ({error.message()})"
    return None
