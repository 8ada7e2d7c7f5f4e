"""``chirpwatch serve``: the embedded Triton server."""

import contextlib
import logging
import time
from pathlib import Path

import click

from chirpwatch.logs import LOG_FORMAT
from chirpwatch.serve.entries import (
    CONFIGURATION,
    ENTRIES,
)
from chirpwatch.shipped import SHIPPED

logger = logging.getLogger("chirpwatch.serve")

PORT = click.IntRange(0, 65535)


@click.command()
@click.argument(
    "repository", type=click.Path(path_type=Path), default=SHIPPED, required=False
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address.")
@click.option(
    "--grpc-port", type=PORT, default=8001, show_default=True, help="0 finds one."
)
@click.option(
    "--http-port", type=PORT, default=8000, show_default=True, help="0 finds one."
)
@click.option(
    "--metrics-port", type=PORT, default=8002, show_default=True, help="0 finds one."
)
@click.option(
    "--model-config-name",
    "configuration",
    metavar="NAME",
    default=CONFIGURATION,
    show_default=True,
    help="Which of the models' configurations to serve: 'cpu' has the detector as one "
    "model, with the same scores; one that no model has, such as 'default', gives the "
    "ensemble.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="File that the server's log is added to. Without it, a temporary one, which "
    "is kept after an error.",
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
    """Serve a model repository with the embedded Triton until Ctrl-C.

    REPOSITORY is the shipped one unless another is given. The server is NVIDIA's own,
    from the package nvidia-pytriton: no Docker and no GPU are needed.
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
