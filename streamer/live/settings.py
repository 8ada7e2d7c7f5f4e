"""Settings of a live search."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chirpwatch.streamer.results_api import Connection


@dataclass(frozen=True)
class FrameSettings:
    """Which frame files and channels are read.

    Attributes:
        directory: Directory with a directory of frame files for each detector.
        strain_channels, state_channels, state_bits: As for
            ``channels.chosen_channels``.
        patience: Longest wait for a second that another detector has delivered, s.
        simulated: Whether the strain is simulated.
    """

    directory: Path
    strain_channels: tuple[str, ...]
    state_channels: tuple[str, ...]
    state_bits: tuple[str, ...]
    patience: float
    simulated: bool


@dataclass(frozen=True)
class ServerSettings:
    """Which Triton server scores the strain.

    Attributes:
        triton: gRPC address of a running Triton server; None starts a server.
        repository: Model repository of a server that is started.
    """

    triton: str | None
    repository: Path


@dataclass(frozen=True)
class RankingSettings:
    """How candidates are ranked.

    Attributes:
        far_per_year: Largest false-alarm rate of a candidate, per Julian year.
        background_run: Run whose background ranks candidates; None: the model's run
            with the most background livetime.
    """

    far_per_year: float
    background_run: str | None


@dataclass(frozen=True)
class AlertSettings:
    """Where candidates are sent.

    Attributes:
        file: JSON lines file to which candidates are appended.
        webhook: URL to POST candidates to, or None.
        webhook_secret_file: File with the secret that signs requests, or None.
        gracedb: Whether they are sent to GraceDB.
        gracedb_url, gracedb_group, gracedb_pipeline: URL of GraceDB's API, and the
            event's group and pipeline.
    """

    file: Path
    webhook: str | None
    webhook_secret_file: Path | None
    gracedb: bool
    gracedb_url: str
    gracedb_group: str
    gracedb_pipeline: str


@dataclass(frozen=True)
class MetricsSettings:
    """Where metrics are served to Prometheus.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free port, None serves no metrics.
    """

    host: str
    port: int | None


@dataclass(frozen=True)
class LiveSettings:
    """Settings of a live search.

    Attributes:
        frames: Which frame files and channels are read.
        server: Which Triton server scores the strain.
        ranking: How candidates are ranked.
        alerts: Where candidates are sent.
        metrics: Where metrics are served to Prometheus.
        api: Address of a running results API; None starts an API.
        directory: Directory for state, logs and undelivered results.
    """

    frames: FrameSettings
    server: ServerSettings
    ranking: RankingSettings
    alerts: AlertSettings
    metrics: MetricsSettings
    api: "Connection | None"
    directory: Path
