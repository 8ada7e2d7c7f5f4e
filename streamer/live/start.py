"""Starts a live search and the services that it needs."""

import contextlib
import logging
import signal
from pathlib import Path
from types import FrameType

from prometheus_client import start_http_server

from chirpwatch.errors import ConfigurationError
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.delivery import deliver
from chirpwatch.streamer.live.alerts import Alerts, GraceDb, JsonLines, Sink, Webhook
from chirpwatch.streamer.live.channels import chosen_channels
from chirpwatch.streamer.live.metrics import LiveMetrics
from chirpwatch.streamer.live.search import LiveSearch
from chirpwatch.streamer.live.settings import (
    AlertSettings,
    LiveSettings,
    MetricsSettings,
)
from chirpwatch.streamer.outbox import Outbox
from chirpwatch.streamer.results_api import results_api
from chirpwatch.streamer.servers import triton_server

log = logging.getLogger("chirpwatch.live")


def search(settings: LiveSettings) -> None:
    """Start the services that do not run yet, and search until SIGTERM or Ctrl-C.

    Raises:
        ChirpwatchError: A service did not start, or the search failed.
    """
    directory, frames = settings.directory, settings.frames
    directory.mkdir(parents=True, exist_ok=True)
    sinks = _sinks(settings.alerts)
    metrics = LiveMetrics(directory)
    with contextlib.ExitStack() as stack:
        _serve_metrics(settings.metrics, metrics, stack)
        address, _ = stack.enter_context(
            triton_server(
                settings.server.triton,
                settings.server.repository,
                directory / "triton.log",
            )
        )
        client = stack.enter_context(results_api(settings.api, directory)).client
        outbox = stack.enter_context(Outbox(directory / "outbox", client))
        alerts = stack.enter_context(Alerts(directory, sinks, metrics))
        score_client = ScoreClient(address)
        channels = chosen_channels(
            score_client.geometry.ifos,
            frames.strain_channels,
            frames.state_channels,
            frames.state_bits,
        )
        live = LiveSearch(
            settings, score_client, channels, client, outbox, alerts, metrics
        )

        def end(number: int, frame: FrameType | None) -> None:
            live.end()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        log.info("results page: %s/", client.url, extra={"url": client.url})
        try:
            live.run()
        finally:
            deliver(outbox)


def _sinks(settings: AlertSettings) -> list[Sink]:
    sinks: list[Sink] = [JsonLines(settings.file)]
    if settings.webhook is not None:
        sinks.append(Webhook(settings.webhook, _secret(settings.webhook_secret_file)))
    if settings.gracedb:
        sinks.append(
            GraceDb(
                settings.gracedb_url, settings.gracedb_group, settings.gracedb_pipeline
            )
        )
    return sinks


def _serve_metrics(
    settings: MetricsSettings, metrics: LiveMetrics, stack: contextlib.ExitStack
) -> None:
    if settings.port is None:
        return
    server, _ = start_http_server(settings.port, settings.host, metrics.registry)
    stack.callback(server.shutdown)
    url = f"http://{settings.host}:{server.server_port}/metrics"
    log.info("metrics at %s", url, extra={"url": url})


def _secret(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"--webhook-secret-file: expected a readable file, found: {error}"
        ) from None
    if not secret:
        raise ConfigurationError(
            f"--webhook-secret-file: expected a secret in {path}, found an empty file"
        )
    return secret
