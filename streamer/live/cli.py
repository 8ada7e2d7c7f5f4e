"""``chirpwatch live``: strain as it comes."""

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
    help="Directory with a directory for each detector, such as /dev/shm/kafka, to "
    "which frames are written: H1/H-H1_llhoft-1264316116-1.gwf.",
)
@click.option(
    "--strain-channel",
    "strain_channels",
    multiple=True,
    metavar="[IFO:]NAME",
    show_default="GDS-CALIB_STRAIN; V1:Hrec_hoft_16384Hz",
    help="Channel of the strain, of every detector, or of the one that stands before "
    "it; may be given several times.",
)
@click.option(
    "--state-channel",
    "state_channels",
    multiple=True,
    metavar="[IFO:]NAME",
    show_default="GDS-CALIB_STATE_VECTOR; V1:DQ_ANALYSIS_STATE_VECTOR",
    help="Channel of the state vector, alike; empty: everything is analysed.",
)
@click.option(
    "--state-bits",
    multiple=True,
    metavar="[IFO:]BITS",
    show_default="0,1; V1:0,1,10",
    help="Bits that must be set for a second to be analysed, alike.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Longest wait for a frame of one detector that another one has, s.",
)
@far_option(JULIAN_YEAR / 86_400, "one a day", "False-alarm rate of a candidate")
@click.option(
    "--background-run",
    metavar="RUN",
    help="Run of the results API whose background ranks candidates. Without it, the "
    "one of the served model with the most.",
)
@click.option(
    "--candidates",
    "candidates_file",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="candidates.jsonl in --directory",
    help="File that gets a line of JSON for each candidate.",
)
@click.option("--webhook", metavar="URL", help="Address that takes candidates by POST.")
@click.option(
    "--webhook-secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the secret that what is posted is signed with (HMAC-SHA256).",
)
@click.option("--gracedb", is_flag=True, help="Send candidates to GraceDB.")
@click.option(
    "--gracedb-url",
    default=GRACEDB,
    show_default=True,
    help="Its API: the test instance unless told otherwise.",
)
@click.option("--gracedb-group", default="Test", show_default=True, help="Its group.")
@click.option(
    "--gracedb-pipeline", default="aframe", show_default=True, help="Its pipeline."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Port on which Prometheus may ask, of this machine.",
)
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, help="Its host."
)
@click.option("--simulated", is_flag=True, help="Say that the strain is simulated.")
@directory_option(
    "runs/live",
    "Where state, logs, and results that the API has not taken yet are kept. The "
    "same directory goes on where it ended.",
)
@with_options([TRITON, REPOSITORY], API, [LOG_FORMAT])
def live(**options: Any) -> None:
    """Search strain as it comes, and send candidates.

    Reads frames of 1 s or more of each detector as they appear. What is late, missing,
    damaged or off is a gap, after which a new sequence begins. A candidate is sent once
    the kernel and its filter have passed it, with its false-alarm rate by a background
    of the same model. Ends with SIGTERM or Ctrl-C.
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
    """The settings, from the options by their names."""

    def group(settings: Any, **more: Any) -> Any:
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
