"""A replay's results, as tables for people and as JSON for scripts.

All numbers but the speed come from the results API, so that they equal the page's.
"""

from typing import Any

from rich.console import Console
from rich.table import Table

from chirpwatch.api.client import (
    ApiClient,
    ApiRefused,
)
from chirpwatch.streamer.replay.speed import ReplaySpeed
from chirpwatch.units import JULIAN_YEAR

CANDIDATES = 200
"""Number of loudest zero-lag events in the report."""


def collect(
    client: ApiClient, run: str, speed: ReplaySpeed, far_per_year: float
) -> dict[str, Any]:
    """Collect a run's results from the API.

    Args:
        client: The results API.
        run: Identifier of the run.
        speed: Throughput and latency of the replay.
        far_per_year: False-alarm rate at which an injection counts as found, per Julian
            year.

    Returns:
        JSON values: ``run``, ``model``, ``simulated``, ``data``, ``zero_lag_events``
        (their number), ``zero_lag`` (the loudest), ``livetime`` (each kind's, s),
        ``background``, ``injections`` (``null`` without injections), ``throughput`` (s
        of strain per s), ``slides_throughput`` (s of all slides per s, ``null`` without
        slides) and ``latency`` (ms, of updates of 1/8 s).
    """
    status = client.run(run)
    candidates = client.candidates(run, limit=CANDIDATES)
    slides = client.slides(run)
    background = client.background(run).model_copy(update={"slides": slides})
    injections: dict[str, Any] | None = None
    if status.injections.streams:
        try:
            efficiency = client.injections(run, far_per_year).model_dump(mode="json")
            injections = {"unavailable": None} | efficiency
        except ApiRefused as error:
            # The background is too short for this rate: report the reason instead.
            injections = {"far_per_year": far_per_year, "unavailable": str(error)}
    return {
        "run": run,
        "model": status.model,
        "simulated": status.simulated,
        "data": status.data,
        "zero_lag_events": candidates.total,
        "zero_lag": [
            {
                "time": event.time,
                "statistic": event.statistic,
                "far_per_year": event.far_per_year,
                "saturated": event.saturated,
            }
            for event in candidates.candidates
        ],
        "livetime": {
            "zero_lag": status.zero_lag.livetime,
            "background": status.background.livetime,
            "injections": status.injections.livetime,
        },
        "background": background.model_dump(mode="json"),
        "injections": injections,
        "throughput": speed.throughput,
        "slides_throughput": speed.slides_throughput,
        "latency": speed.latency_ms,
    }


def show(result: dict[str, Any], page: str, console: Console) -> None:
    """Print the results as tables.

    Args:
        result: The results from ``collect``.
        page: URL of the results page.
        console: Where to print.
    """
    kind = "simulated strain" if result["simulated"] else "recorded strain"
    console.print(f"\n[bold]{result['data']}[/bold] ({kind}, model {result['model']})")
    livetime, background = result["livetime"], result["background"]
    latency = result["latency"]
    table = Table(show_header=False, box=None)
    table.add_row("livetime, zero-lag", f"{livetime['zero_lag']:.1f} s")
    table.add_row(
        "livetime, background",
        f"{livetime['background']:.1f} s in {len(background['slides'])} slides",
    )
    table.add_row("background events", f"{background['events']}")
    table.add_row("throughput", f"{result['throughput']:.0f} s of strain per second")
    if result["slides_throughput"] is not None:
        table.add_row(
            "throughput, timeslides",
            f"{result['slides_throughput']:.0f} s of slides per second",
        )
    table.add_row(
        "latency of an update",
        f"{latency['p50']:.1f} ms median, {latency['p99']:.1f} ms 99th percentile",
    )
    console.print(table)

    table = Table(title="Loudest zero-lag events")
    for column in ("GPS time", "statistic", "FAR per year"):
        table.add_column(column, justify="right")
    for event in result["zero_lag"][:5]:
        far = event["far_per_year"]
        limit = "< " if event["saturated"] else ""
        table.add_row(
            f"{event['time']:.3f}",
            f"{event['statistic']:.2f}",
            "no background" if far is None else f"{limit}{far:.3g}",
        )
    console.print(table)
    if any(event["saturated"] for event in result["zero_lag"][:5]):
        console.print("<: upper limit; the event is louder than all background")

    injections = result["injections"]
    if injections is not None:
        rate = injections["far_per_year"] / JULIAN_YEAR * 3600
        if injections["unavailable"]:
            console.print(f"Injections: {injections['unavailable']}")
        else:
            table = Table(title=f"Injections found at a FAR of {rate:.3g} an hour")
            for column in ("network SNR", "injected", "found", "efficiency (68 %)"):
                table.add_column(column, justify="right")
            for snr_bin in injections["efficiency"]:
                if snr_bin["injections"]:
                    high = snr_bin["high_edge"]
                    table.add_row(
                        f"{snr_bin['low_edge']:g} to {high:g}"
                        if high is not None
                        else f"from {snr_bin['low_edge']:g}",
                        str(snr_bin["injections"]),
                        str(snr_bin["found"]),
                        f"{snr_bin['efficiency']:.2f} ({snr_bin['low']:.2f} to "
                        f"{snr_bin['high']:.2f})",
                    )
            found_count = len(injections["found"])
            table.add_section()
            table.add_row("all", str(injections["total"]), str(found_count), "")
            console.print(table)
    console.print(f"\nThe page: [link={page}]{page}[/link]")
