"""``chirpwatch serve``: the embedded Triton server."""

import contextlib
import logging
import time
from pathlib import Path

import click

from chirpwatch.logs import LOG_FORMAT
from chirpwatch.serve.entries import CONFIGURATION, ENTRIES
from chirpwatch.shipped import SHIPPED

logger = logging.getLogger("chirpwatch.serve")

PORT = click.IntRange(0, 65535)


@click.command()
@click.argument(
    "repository", type=click.Path(path_type=Path), default=SHIPPED, required=False
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
)
@click.option(
    "--grpc-port",
    type=PORT,
    default=8001,
    show_default=True,
    help="Port for gRPC; 0 selects a free one.",
)
@click.option(
    "--http-port",
    type=PORT,
    default=8000,
    show_default=True,
    help="Port for HTTP and health checks; 0 selects a free one.",
)
@click.option(
    "--metrics-port",
    type=PORT,
    default=8002,
    show_default=True,
    help="Port for Prometheus metrics; 0 selects a free one.",
)
@click.option(
    "--model-config-name",
    "configuration",
    metavar="NAME",
    default=CONFIGURATION,
    show_default=True,
    help="Name of the models' configuration to serve. With 'cpu', the ensemble "
    "'detector' is a single model with the same scores. A name that no model has, such "
    "as 'default', serves the ensemble.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="File that the server's log is appended to. Without it, a temporary file, "
    "which is kept after an error.",
)
@LOG_FORMAT
def serve(
    repository: Path,
    host: str,
    grpc_port: int,
    http_port: int,
    metrics_port: int,
    configuration: str,
    log: Path | None,
) -> None:
    """Serve a model REPOSITORY with the embedded Triton server until Ctrl-C.

    By default, REPOSITORY is the one shipped with chirpwatch. The server is NVIDIA's
    Triton from the package nvidia-pytriton; it needs neither Docker nor a GPU.
    """
    from chirpwatch.serve.embedded import TritonServer

    server = TritonServer(
        repository,
        grpc_port,
        http_port,
        metrics_port,
        host,
        log,
        configuration=configuration,
        entries=(*ENTRIES, "stream"),
    )
    with server, contextlib.suppress(KeyboardInterrupt):
        logger.info(
            "serving %s at %s (gRPC), metrics at %s, Triton's own log in %s",
            repository,
            server.address,
            server.metrics_url,
            server.log_path,
            extra={"address": server.address, "metrics_url": server.metrics_url},
        )
        while True:
            server.check()
            time.sleep(0.5)
