"""``chirpwatch live``: search strain as it arrives."""

from pathlib import Path
from typing import Any

import click

from chirpwatch.logs import LOG_FORMAT
from chirpwatch.streamer.live.channels import parse_bits
from chirpwatch.streamer.live.settings import (
    AlertSettings,
    FrameSettings,
    LiveSettings,
    MetricsSettings,
    RankingSettings,
    ServerSettings,
)
from chirpwatch.streamer.options import (
    API,
    REPOSITORY,
    TRITON,
    connection,
    directory_option,
    far_option,
    with_options,
)
from chirpwatch.units import JULIAN_YEAR

GRACEDB = "https://gracedb-test.ligo.org/api/"


@click.command()
@click.option(
    "--frames",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory, such as /dev/shm/kafka, with a directory of frame files for each "
    "detector: H1/H-H1_llhoft-1264316116-1.gwf.",
)
@click.option(
    "--strain-channel",
    "strain_channels",
    multiple=True,
    metavar="[IFO:]NAME",
    show_default="GDS-CALIB_STRAIN; V1:Hrec_hoft_16384Hz",
    help="Channel of the strain: NAME for every detector, IFO:NAME for a single "
    "detector; may be given several times.",
)
@click.option(
    "--state-channel",
    "state_channels",
    multiple=True,
    metavar="[IFO:]NAME",
    show_default="GDS-CALIB_STATE_VECTOR; V1:DQ_ANALYSIS_STATE_VECTOR",
    help="Channel of the state vector, given in the same way; empty: every second is "
    "analysed.",
)
@click.option(
    "--state-bits",
    multiple=True,
    metavar="[IFO:]BITS",
    show_default="0,1; V1:0,1,10",
    help="Bits of the state vector that must be set for a second to be analysed, given "
    "in the same way.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Longest wait for a detector's frame file after another detector delivered "
    "that second or a later one, s.",
)
@far_option(
    JULIAN_YEAR / 86_400, "one a day", "Largest false-alarm rate of a candidate"
)
@click.option(
    "--background-run",
    metavar="RUN",
    help="Run of the results API whose background ranks candidates. Without it, the "
    "served model's run with the most background livetime.",
)
@click.option(
    "--candidates",
    "candidates_file",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="candidates.jsonl in --directory",
    help="JSON lines file to which each candidate is appended.",
)
@click.option("--webhook", metavar="URL", help="URL to POST candidates to.")
@click.option(
    "--webhook-secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the secret that signs webhook requests (HMAC-SHA256).",
)
@click.option("--gracedb", is_flag=True, help="Send candidates to GraceDB.")
@click.option(
    "--gracedb-url",
    default=GRACEDB,
    show_default=True,
    help="URL of GraceDB's API; by default the test instance's.",
)
@click.option(
    "--gracedb-group", default="Test", show_default=True, help="GraceDB group."
)
@click.option(
    "--gracedb-pipeline",
    default="aframe",
    show_default=True,
    help="GraceDB pipeline.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Port on which metrics are served to Prometheus; without it, they are not.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="Address on which metrics are served.",
)
@click.option("--simulated", is_flag=True, help="Mark the results as simulated.")
@directory_option(
    "runs/live",
    "Directory for state, logs and undelivered results. A search that is started "
    "again with the same directory continues its run.",
)
@with_options([TRITON, REPOSITORY], API, [LOG_FORMAT])
def live(**options: Any) -> None:
    """Search strain as it arrives, and send candidates.

    Reads each detector's frame files as they appear. A second that is late, missing,
    damaged or flagged off in the state vector is a gap, after which a new sequence
    begins. A candidate is sent once no later score can see its merger, with its
    false-alarm rate from a background of the same model. Ends on SIGTERM or Ctrl-C.
    """
    settings = _settings(**options)
    for value in settings.frames.state_bits:
        parse_bits(value.rpartition(":")[2])

    from chirpwatch.streamer.live.start import search

    search(settings)


def _settings(
    *,
    frames: Path,
    candidates_file: Path | None,
    far: float,
    metrics_host: str,
    metrics_port: int | None,
    directory: Path,
    api_url: str | None,
    token_file: Path | None,
    **options: Any,
) -> LiveSettings:
    """Build the settings from the command's options."""

    def group(settings: Any, **more: Any) -> Any:
        # Options have the names of the settings' fields.
        names = settings.__dataclass_fields__.keys() & options.keys()
        return settings(**more, **{name: options[name] for name in names})

    return LiveSettings(
        frames=group(FrameSettings, directory=frames),
        server=group(ServerSettings),
        ranking=group(RankingSettings, far_per_year=far),
        alerts=group(
            AlertSettings, file=candidates_file or directory / "candidates.jsonl"
        ),
        metrics=MetricsSettings(metrics_host, metrics_port),
        api=connection(api_url, token_file),
        directory=directory,
    )
