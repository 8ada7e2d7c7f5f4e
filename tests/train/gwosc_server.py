"""A local HTTP server in place of gwosc.org, since tests have no network.

It answers as version 2 of GWOSC's interface does (pages of results with ``next`` and
``num_pages``; runs, timelines, event versions, strain files), and serves HDF5 files of
GWOSC's layout. It can also fail in the ways in which networks and servers fail.
"""

import contextlib
import io
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import h5py
import numpy as np

LARGEST_PAGE = 3
"""Results per page: few, so that each list has several pages."""


def gwosc_file(ifo: str, start: int, strain: np.ndarray, rate: int = 4096) -> bytes:
    """Bytes of a strain file in GWOSC's format."""
    seconds = len(strain) // rate
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        dataset = file.create_dataset("strain/Strain", data=strain, compression="gzip")
        dataset.attrs.update(
            {"Npoints": len(strain), "Xstart": start, "Xspacing": 1 / rate}
        )
        dataset.attrs.update(
            {"Xlabel": "GPS time", "Xunits": "second", "Ylabel": "Strain", "Yunits": ""}
        )
        file["meta/Description"] = "Strain data time series from LIGO"
        file["meta/Detector"] = ifo
        file["meta/Observatory"] = ifo[0]
        file["meta/Type"] = "StrainTimeSeries"
        file["meta/GPSstart"] = start
        file["meta/Duration"] = seconds
        for name in ("quality/simple/DQmask", "quality/injections/Injmask"):
            mask = file.create_dataset(name, data=np.full(seconds, 127, "u4"))
            mask.attrs.update({"Npoints": seconds, "Xstart": start, "Xspacing": 1.0})
    return buffer.getvalue()


class GwoscServer:
    """The server; start and stop it as a context.

    Attributes:
        runs: For each run its start, end and detectors.
        flags: For each timeline, such as ``H1_CBC_CAT1``, the segments in which it is
            on; an unknown timeline is answered with 404.
        events: Event versions: name, gps, catalog, version.
        files: For each file name its content.
        faults: For each file name (or part of a path) what goes wrong in the next
            requests, in order: a status such as ``"500"``, ``"truncate"`` (the
            connection closes half-way), ``"damage"`` (bytes in the middle are
            overwritten) or ``"trickle"`` (half of it comes, then a byte now and then).
        downloads: Names of the requested files, in order.
        trickling: Event that is set once a download trickles.
        ended: Event that is set when the server stops.
    """

    def __init__(self) -> None:
        self.runs: dict[str, tuple[int, int, list[str]]] = {}
        self.flags: dict[str, list[tuple[int, int]]] = {}
        self.events: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.downloads: list[str] = []
        self.trickling = threading.Event()
        self.ended = threading.Event()
        owner = self

        class Handler(_Handler):
            gwosc = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # A short poll interval: the server stops without making the test wait.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, ifo: str, start: int, strain: np.ndarray, rate: int = 4096) -> str:
        """Publish a generated strain file; return its name."""
        kilohertz = {4096: 4, 16384: 16}[rate]
        name = (
            f"{ifo[0]}-{ifo}_GWOSC_O3a_{kilohertz}KHZ_R1-{start}-"
            f"{len(strain) // rate}.hdf5"
        )
        self.files[name] = gwosc_file(ifo, start, strain, rate)
        return name

    def add_file(self, path: Path) -> None:
        """Publish a file as it is."""
        self.files[path.name] = path.read_bytes()


class _Handler(BaseHTTPRequestHandler):
    gwosc: GwoscServer

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        match address.path.strip("/").split("/"):
            case ["api", "v2", *_] if self._fault(address.path) is not None:
                self._send(500, b"{}")
            case ["api", "v2", "runs"]:
                self._page(
                    query,
                    [
                        {
                            "name": name,
                            "gps_start": start,
                            "gps_end": end,
                            "detectors": ifos,
                        }
                        for name, (start, end, ifos) in self.gwosc.runs.items()
                    ],
                )
            case ["api", "v2", "runs", run, "strain-files"]:
                self._page(query, self._strain_files(run, query))
            case ["api", "v2", "timelines", flag, "segments"]:
                if flag not in self.gwosc.flags:
                    self._send(404, b'{"detail": "Not found."}')
                    return
                start, stop = int(query["start"]), int(query["stop"])
                self._page(
                    query,
                    [
                        {"start": max(a, start), "stop": min(b, stop)}
                        for a, b in self.gwosc.flags[flag]
                        if a < stop and b > start
                    ],
                )
            case ["api", "v2", "event-versions"]:
                low, high = query["min-gps-time"], query["max-gps-time"]
                self._page(
                    query,
                    [
                        {
                            **event,
                            "shortName": f"{event['name']}-v{event['version']}",
                            "detectors": ["H1", "L1"],
                        }
                        for event in self.gwosc.events
                        if float(low) <= event["gps"] <= float(high)
                    ],
                )
            case ["archive", "data", _, name] if name in self.gwosc.files:
                self._download(name)
            case _:
                self._send(404, b"not found")

    def _strain_files(self, run: str, query: dict[str, str]) -> list[dict[str, Any]]:
        files = []
        for name in self.gwosc.files:
            start, length = map(int, name.removesuffix(".hdf5").split("-")[2:])
            ifo = name[2:4]
            rate = 16 if "_16" in name else 4
            if (
                ifo == query["detector"]
                and rate == int(query["sample-rate"])
                and start <= int(query["stop"])
                and start + length >= int(query["start"])
            ):
                url = f"{self.gwosc.url}/archive/data/{run}/{name}"
                files.append(
                    {
                        "gps_start": start,
                        "detector": ifo,
                        "sample_rate_kHz": float(rate),
                        "hdf5_url": url,
                        "gwf_url": url.replace(".hdf5", ".gwf"),
                    }
                )
        return files

    def _page(self, query: dict[str, str], results: list[dict[str, Any]]) -> None:
        size = min(int(query.get("pagesize", 20)), LARGEST_PAGE)
        page, pages = int(query.get("page", 1)), max(1, -(-len(results) // size))
        rest = {**query, "page": str(page + 1)}
        path = urlsplit(self.path).path
        following = f"{self.gwosc.url}{path}?{urlencode(rest)}"
        answer = {
            "next": following if page < pages else None,
            "previous": None,
            "results_count": len(results),
            "results_per_page": size,
            "num_pages": pages,
            "page_number": page,
            "results": results[(page - 1) * size : page * size],
        }
        self._send(200, json.dumps(answer).encode())

    def _fault(self, path: str) -> str | None:
        for key, faults in self.gwosc.faults.items():
            if key in path and faults:
                return faults.pop(0)
        return None

    def _download(self, name: str) -> None:
        self.gwosc.downloads.append(name)
        content = self.gwosc.files[name]
        half = len(content) // 2
        fault = self._fault(name)
        if fault is not None and fault.isdigit():
            self._send(int(fault), b"")
        elif fault == "damage":
            self._send(200, content[:half] + bytes(4096) + content[half + 4096 :])
        elif fault in ("truncate", "trickle"):
            self._head(200, len(content))
            self.wfile.write(content[:half])
            if fault == "trickle":
                self.gwosc.trickling.set()
            with contextlib.suppress(OSError):
                while fault == "trickle" and not self.gwosc.ended.wait(0.05):
                    self.wfile.write(b"\0")
        else:
            self._send(200, content)

    def _head(self, status: int, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        if status >= 500:
            self.send_header("Retry-After", "0")
        self.end_headers()

    def _send(self, status: int, content: bytes) -> None:
        self._head(status, len(content))
        self.wfile.write(content)
