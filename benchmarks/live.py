"""A complete live search on this machine, for benchmarks."""

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
    """Command line of a chirpwatch command."""
    return [sys.executable, "-m", "chirpwatch", *map(str, arguments)]


@dataclass(frozen=True)
class LiveSystem:
    """Triton with the shipped models, the results service, and a live search.

    Attributes:
        triton: Triton.
        api: Results service.
        search: Process of the live search.
        url: URL of the search's Prometheus metrics.
    """

    triton: TritonServer
    api: ApiProcess
    search: "subprocess.Popen[str]"
    url: str

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Read the search's Prometheus metrics, by name and labels."""
        answer = httpx.get(self.url, trust_env=False, timeout=30).raise_for_status()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def end(self) -> None:
        """Stop the search by SIGTERM; the servers keep running."""
        self.search.send_signal(signal.SIGTERM)
        # It delivers queued results first.
        self.search.wait(600)


@contextlib.contextmanager
def live_system(folder: Path, *options: object) -> Iterator[LiveSystem]:
    """Measure a simulated background, and start a live search of ``FOLDER/frames``.

    Args:
        folder: Folder of all files.
        options: Additional options of ``chirpwatch live``.

    Yields:
        The system, once the search has the background.
    """
    strain, token = folder / "noise.hdf5", folder / "token"
    simulation = ("--duration", 1200, "--seed", 1, "--glitch-rate", 0.2)
    subprocess.run(run("simulate", "background", strain, *simulation), check=True)
    with (
        TritonServer(SHIPPED, log=folder / "triton.log") as triton,
        ApiProcess(folder / "results.db", log=folder / "api.log") as api,
    ):
        token.write_text(api.token)
        servers = ("--triton", triton.address, "--api", api.url, "--token-file", token)
        background = ("--background", strain, "--slides", 200, "--workers", 1)
        directory = ("--directory", folder / "background")
        subprocess.run(run("background", *background, *directory, *servers), check=True)
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
                # Then the search loads the packages that read frames.
                time.sleep(5)
                yield system
            finally:
                if search.poll() is None:
                    search.kill()
                search.wait()
                copier.join()
