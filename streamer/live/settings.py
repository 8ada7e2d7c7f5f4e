"""What a live search is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chirpwatch.streamer.results_api import Connection


@dataclass(frozen=True)
class FrameSettings:
    """What is read.

    Attributes:
        directory: Directory with a directory of frames for each detector.
        strain_channels, state_channels, state_bits: As for
            ``channels.chosen_channels``.
        patience: Longest wait for a frame of one detector that another one has, s.
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
    """What serves the detector.

    Attributes:
        triton: gRPC address of a Triton server that runs; None starts one.
        repository: Model repository for that.
    """

    triton: str | None
    repository: Path


@dataclass(frozen=True)
class RankingSettings:
    """What a candidate is.

    Attributes:
        far_per_year: Its largest false-alarm rate, per Julian year.
        background_run: Run whose background ranks it; None: the one with the most
            livetime.
    """

    far_per_year: float
    background_run: str | None


@dataclass(frozen=True)
class AlertSettings:
    """Where candidates are sent.

    Attributes:
        file: File that gets a line of JSON for each.
        webhook: Address that takes them by POST, or None.
        webhook_secret_file: File with the secret that posts are signed with, or None.
        gracedb: Whether they are sent to GraceDB.
        gracedb_url, gracedb_group, gracedb_pipeline: GraceDB's API, and the group and
            pipeline that it knows an event by.
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
    """Where Prometheus finds metrics.

    Attributes:
        host: Address to listen on.
        port: Port; 0 finds a free one, None serves none.
    """

    host: str
    port: int | None


@dataclass(frozen=True)
class LiveSettings:
    """All that a live search is asked for.

    Attributes:
        frames: What is read.
        server: What serves the detector.
        ranking: What a candidate is.
        alerts: Where candidates are sent.
        metrics: Where Prometheus finds metrics.
        api: Where the results API is; None starts one.
        directory: Where state, logs, and results that wait are kept.
    """

    frames: FrameSettings
    server: ServerSettings
    ranking: RankingSettings
    alerts: AlertSettings
    metrics: MetricsSettings
    api: "Connection | None"
    directory: Path
