"""A whole live search on this machine, for the benchmarks of it."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from chirpwatch.api.process import ApiProcess
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.shipped import SHIPPED


def run(*arguments: object) -> list[str]:
    """A command line of chirpwatch."""
    return [sys.executable, "-m", "chirpwatch", *map(str, arguments)]


@dataclass(frozen=True)
class LiveSystem:
    """Triton on the shipped models, the results service, and a live search.

    Attributes:
        triton, api: The servers.
        search: The search's process.
        url: Where it tells Prometheus its metrics.
    """

    triton: TritonServer
    api: ApiProcess
    search: "subprocess.Popen[str]"
    url: str

    def metrics(self) -> dict[tuple[str, ...], float]:
        """What the search tells Prometheus, by name and labels."""
        answer = httpx.get(self.url, trust_env=False, timeout=30).raise_for_status()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def end(self) -> None:
        """End the search as an operator does; the servers stay."""
        self.search.send_signal(signal.SIGTERM)
        # Results that wait are delivered first.
        self.search.wait(600)


@contextlib.contextmanager
def live_system(folder: Path, *options: object) -> Iterator[LiveSystem]:
    """Simulate and measure background, and begin a search of ``FOLDER/frames``.

    Args:
        folder: Where everything is kept.
        options: Further ones of `chirpwatch live`.
    """
    noise, token = folder / "noise.hdf5", folder / "token"
    made = ("--duration", 1200, "--seed", 1, "--glitch-rate", 0.2)
    subprocess.run(run("simulate", "background", noise, *made), check=True)
    with (
        TritonServer(SHIPPED, log=folder / "triton.log") as triton,
        ApiProcess(folder / "results.db", log=folder / "api.log") as api,
    ):
        token.write_text(api.token)
        servers = ("--triton", triton.address, "--api", api.url, "--token-file", token)
        background = ("--background", noise, "--slides", 200, "--workers", 1)
        place = ("--directory", folder / "background")
        subprocess.run(run("background", *background, *place, *servers), check=True)
        frames = ("--frames", folder / "frames", "--directory", folder / "live")
        search = subprocess.Popen(
            run(
                "live", "--simulated", *frames, *servers, "--metrics-port", 0, *options
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert search.stderr is not None
        url = search.stderr.readline().split()[-1]
        with (folder / "live.log").open("w") as log:
            copier = threading.Thread(target=log.writelines, args=(search.stderr,))
            copier.start()
            system = LiveSystem(triton, api, search, url)
            try:
                while not system.metrics()["chirpwatch_live_background_seconds",]:
                    time.sleep(0.1)
                # It loads what it reads frames by after that.
                time.sleep(5)
                yield system
            finally:
                if search.poll() is None:
                    search.kill()
                search.wait()
                copier.join()
