"""Whether the Triton server is ready."""

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

MODEL = "detector"
TIMEOUT = 2.0
"""Longest wait for an answer, s."""


def triton_fault(address: str) -> str | None:
    """What keeps a Triton server from scoring strain; nothing if it is ready.

    Args:
        address: Host and port of its gRPC.
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
