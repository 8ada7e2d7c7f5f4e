"""``chirpwatch live``: strain as it comes."""

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.console import Console

from chirpwatch.errors import ConfigurationError
from chirpwatch.streamer.live.channels import (
    Channels,
    low_latency_channels,
)
from chirpwatch.streamer.options import (
    API,
    REPOSITORY,
    TRITON,
    connection,
    with_options,
)
from chirpwatch.units import JULIAN_YEAR

if TYPE_CHECKING:
    from chirpwatch.streamer.live.alerts import (
        Sink,
        Teller,
    )
    from chirpwatch.streamer.live.ledger import Ledger
    from chirpwatch.streamer.live.metrics import LiveMetrics

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
@click.option(
    "--far",
    type=click.FloatRange(0, min_open=True),
    default=JULIAN_YEAR / 86_400,
    show_default="one a day",
    help="False-alarm rate of a candidate, per year.",
)
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
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/live"),
    show_default=True,
    help="Where state, logs, and results that the API has not taken yet are kept. The "
    "same directory goes on where it ended.",
)
@with_options([TRITON, REPOSITORY], API)
def live(
    frames: Path,
    strain_channels: tuple[str, ...],
    state_channels: tuple[str, ...],
    state_bits: tuple[str, ...],
    patience: float,
    far: float,
    background_run: str | None,
    candidates_file: Path | None,
    webhook: str | None,
    webhook_secret_file: Path | None,
    gracedb: bool,
    gracedb_url: str,
    gracedb_group: str,
    gracedb_pipeline: str,
    metrics_port: int | None,
    metrics_host: str,
    simulated: bool,
    directory: Path,
    triton: str | None,
    repository: Path,
    api_url: str | None,
    token_file: Path | None,
) -> None:
    """Search strain as it comes, and tell candidates.

    Reads frames of 1 s or more of each detector as they appear. What is late, missing,
    damaged or off is a gap, after which a new sequence begins. A candidate is told once
    the kernel and its filter have passed it, with its false-alarm rate by a background
    of the same model. Ends with SIGTERM or Ctrl-C.
    """
    for value in state_bits:
        _bits(value.rpartition(":")[2])

    from prometheus_client import start_http_server

    from chirpwatch.api.client import ApiClient
    from chirpwatch.api.process import ApiProcess
    from chirpwatch.serve.embedded import TritonServer
    from chirpwatch.streamer.client import Detector
    from chirpwatch.streamer.delivery import deliver
    from chirpwatch.streamer.live.alerts import (
        GraceDb,
        JsonLines,
        Sink,
        Webhook,
    )
    from chirpwatch.streamer.live.ledger import Ledger
    from chirpwatch.streamer.live.metrics import LiveMetrics
    from chirpwatch.streamer.live.search import (
        Live,
        LiveSettings,
    )
    from chirpwatch.streamer.outbox import Outbox
    from chirpwatch.streamer.servers import explained

    console = Console(soft_wrap=True)
    directory.mkdir(parents=True, exist_ok=True)
    sinks: list[Sink] = [
        JsonLines(candidates_file or directory / "candidates.jsonl"),
    ]
    if webhook is not None:
        sinks.append(Webhook(webhook, _secret(webhook_secret_file)))
    if gracedb:
        sinks.append(GraceDb(gracedb_url, gracedb_group, gracedb_pipeline))
    metrics = LiveMetrics(directory)
    with contextlib.ExitStack() as stack:
        if metrics_port is not None:
            server, _ = start_http_server(metrics_port, metrics_host, metrics.registry)
            stack.callback(server.shutdown)
            console.print(
                f"metrics at http://{metrics_host}:{server.server_port}/metrics"
            )
        if triton is None:
            console.print("starting Triton ...")
            own = stack.enter_context(
                TritonServer(repository, log=directory / "triton.log")
            )
            stack.enter_context(explained(own))
            triton = own.address
        api = connection(api_url, token_file)
        if api is None:
            console.print("starting the results API ...")
            service = stack.enter_context(
                ApiProcess(directory / "results.db", log=directory / "api.log")
            )
            client = stack.enter_context(service.client())
        else:
            client = stack.enter_context(ApiClient(*api))
        outbox = stack.enter_context(Outbox(directory / "outbox", client))
        ledger = stack.enter_context(
            Ledger(directory / "candidates.db", tuple(sink.name for sink in sinks))
        )
        tellers = [_teller(sink, ledger, metrics) for sink in sinks]
        for teller in tellers:
            teller.start()
            stack.callback(teller.end)
        settings = LiveSettings(
            frames,
            chosen_channels(
                Detector(triton).geometry.ifos,
                strain_channels,
                state_channels,
                state_bits,
            ),
            patience,
            far,
            background_run,
            simulated,
            directory,
        )
        search = Live(
            settings,
            triton,
            client,
            outbox,
            ledger,
            tellers,
            metrics,
            lambda what: console.print(what, highlight=False, markup=False),
        )

        def ended(number: int, frame: FrameType | None) -> None:
            search.end()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ended)
        console.print(f"run {search.run_id}; the page is at {client.url}/")
        try:
            search.run()
        finally:
            deliver(outbox, console)


def _teller(sink: "Sink", ledger: "Ledger", metrics: "LiveMetrics") -> "Teller":
    from chirpwatch.streamer.live.alerts import Teller

    def told(outcome: str, length: float) -> None:
        metrics.told.labels(sink.name, outcome).inc()
        metrics.telling.labels(sink.name).observe(length)

    return Teller(sink, ledger, told)


def chosen_channels(
    ifos: Sequence[str],
    strain: Sequence[str],
    state: Sequence[str],
    bits: Sequence[str],
) -> dict[str, Channels]:
    """What is read of each detector's frames.

    Args:
        ifos: The served model's detectors.
        strain: Channels of the strain: ``NAME`` for every detector, ``IFO:NAME`` for
            one; low-latency distribution's where there is none.
        state: Channels of the state vector, alike; empty: none is read.
        bits: Bits of it, alike, such as ``0,1``.

    Raises:
        ConfigurationError: One is of another detector, or its bits are none.
    """
    strains = _for_each(ifos, "--strain-channel", strain)
    states = _for_each(ifos, "--state-channel", state)
    masks = _for_each(ifos, "--state-bits", bits)
    chosen = {}
    for ifo in ifos:
        usual = low_latency_channels(ifo)
        chosen[ifo] = Channels(
            f"{ifo}:{strains[ifo]}" if ifo in strains else usual.strain,
            (f"{ifo}:{states[ifo]}" if states[ifo] else None)
            if ifo in states
            else usual.state,
            _bits(masks[ifo]) if ifo in masks else usual.bits,
        )
    return chosen


def _for_each(
    ifos: Sequence[str], option: str, values: Sequence[str]
) -> dict[str, str]:
    """The value for each detector that an option speaks of."""
    every: dict[str, str] = {}
    own: dict[str, str] = {}
    for value in values:
        ifo, mark, rest = value.rpartition(":")
        if not mark:
            every = dict.fromkeys(ifos, rest)
        elif ifo in ifos:
            own[ifo] = rest
        else:
            raise ConfigurationError(
                f"{option}: expected one of the served model's detectors, "
                f"{', '.join(ifos)}, before the colon, found {value!r}"
            )
    return every | own


def _bits(text: str) -> tuple[int, ...]:
    try:
        bits = tuple(int(part) for part in text.split(","))
    except ValueError:
        bits = ()
    if not bits or not all(0 <= bit < 32 for bit in bits):
        raise ConfigurationError(
            f"state bits: expected numbers from 0 to 31, as in 0,1, found {text!r}"
        )
    return bits


def _secret(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"the webhook's secret: {error}") from None
    if not secret:
        raise ConfigurationError(f"the webhook's secret: {path} is empty")
    return secret
