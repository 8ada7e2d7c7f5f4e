"""Watches over a server's processes: ``python -m serve.reaper PID``.

The processes that run the server's Python-based backends outlive a server that is
killed, and so does the memory they share with it. And a server that lost one of them
goes on without it, and fails every other request from then on. This waits, without
polling, for either to end: of the first it ends what is left of its process group and
removes its shared memory; the second it ends before, for whoever started it to start it
anew.

On standard input it is told the processes of the models, as JSON, once all are loaded,
and `null` before the server is asked to end, each a line. On standard output, the
server's log, it says what it did.
"""

import contextlib
import json
import os
import select
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is where Triton keeps it
REGION = "triton_onnxruntime_backend_shm_region_"


@dataclass(frozen=True)
class ModelProcess:
    """A process that runs a model.

    Attributes:
        pid: Its id.
        name: The model's instance, such as ``head_0_1``.
        region: Name of the memory that it shares with the server.
    """

    pid: int
    name: str
    region: str


def model_processes(server: int) -> list[ModelProcess]:
    """The processes of the server's group that run models."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            pid = int(status.parent.name)
            if os.getpgid(pid) != server or pid == server:
                continue
            words = status.read_bytes().decode(errors="replace").split("\0")
            regions = [Path(one).name for one in words if one.startswith(REGION)]
            # Triton names the instance last but one.
            found += [ModelProcess(pid, words[-3], region) for region in regions]
    return found


def wait(server: int, models: dict[int, ModelProcess]) -> None:
    """Wait until the server ended, or lost one of its processes: then end it.

    Args:
        server: The server.
        models: Filled with what is told of its processes.
    """
    try:
        descriptor = os.pidfd_open(server)
    except ProcessLookupError:
        return
    told = sys.stdin.fileno()
    watched: dict[int, str] = {}
    gone: list[str] = []
    listening = True
    while not gone:
        both = [descriptor, *([told] if listening else []), *watched]
        ready, _, _ = select.select(both, [], [])
        if descriptor in ready:
            return
        if told not in ready:
            gone = [name for one, name in watched.items() if one in ready]
            continue
        line = os.read(told, 1 << 16).splitlines()[-1:]
        # Without any, whoever started the server is gone; so will the server be.
        listening = line not in ([], [b"null"])
        watched.clear()
        for one in json.loads(line[0]) if listening else []:
            models[one["pid"]] = ModelProcess(**one)
            try:
                watched[os.pidfd_open(one["pid"])] = one["name"]
            except ProcessLookupError:
                gone.append(one["name"])
    # A server that ends by itself ends its processes, too.
    if select.select([descriptor], [], [], 1.0)[0]:
        return
    os.kill(server, signal.SIGKILL)
    select.select([descriptor], [], [])
    sys.stdout.write(
        f"E0000 reaper] the process of {', '.join(gone)} ended, without which the "
        "server fails every other request; the server was ended, too\n"
    )
    sys.stdout.flush()


def reap(server: int) -> None:
    """Wait for the end of the server, then clear up.

    Args:
        server: Process id of the server, which leads its process group.
    """
    known: dict[int, ModelProcess] = {}
    wait(server, known)
    left = model_processes(server)
    for one in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    for one in [*known.values(), *left]:
        (SHARED_MEMORY / one.region).unlink(missing_ok=True)


if __name__ == "__main__":
    reap(int(sys.argv[1]))
