"""Watchdog for a server's processes: ``python -m chirpwatch.serve.reaper PID``.

The processes of the server's Python-based backends, and the memory they share with it,
outlive a server that is killed. A server that loses one of these processes keeps
running, but fails every other request from then on. The reaper waits for either event,
without polling. When the server ends, it kills what is left of the server's process
group and removes the shared memory. When a backend process ends, it first kills the
server, so that whoever started the server can restart it.

The reaper reads lines of JSON from standard input: the list of the models' processes
once all models are loaded, and `null` before the server is asked to stop. It reports a
server that it killed on standard output, which is the server's log.
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
    """Process in which the server's Python-based backend runs a model instance.

    Attributes:
        pid: Process id.
        name: Name of the model instance, such as ``head_0_1``.
        region: Name of the shared memory between the process and the server.
    """

    pid: int
    name: str
    region: str


def model_processes(server: int) -> list[ModelProcess]:
    """List the processes in the server's process group that run models."""
    processes = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            pid = int(status.parent.name)
            if os.getpgid(pid) != server or pid == server:
                continue
            words = status.read_bytes().decode(errors="replace").split("\0")
            regions = [Path(word).name for word in words if word.startswith(REGION)]
            # The last argument but one is the instance's name.
            processes += [ModelProcess(pid, words[-3], region) for region in regions]
    return processes


def ended_children(server: int) -> set[int]:
    """Process ids of the server's zombie children: ended, but not yet waited for.

    A child that is killed before it executes the backend's program is not listed by
    ``model_processes``, but it is listed here.

    Source: proc_pid_stat(5).
    """
    ended = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        # The process may vanish meanwhile: then the server has waited for it.
        with contextlib.suppress(OSError):
            # Fields are separated by spaces, but the name in brackets may contain any
            # character, so start after the last bracket.
            state, parent, *_ = path.read_bytes().rpartition(b")")[2].split()
            if state == b"Z" and int(parent) == server:
                ended.add(int(path.parent.name))
    return ended


def wait(server: int, models: dict[int, ModelProcess]) -> None:
    """Wait until the server ends; kill it if it loses a model's process.

    Args:
        server: Process id of the server.
        models: Dictionary to which the processes read from standard input are added,
            by process id.
    """
    try:
        descriptor = os.pidfd_open(server)
    except ProcessLookupError:
        return
    stdin = sys.stdin.fileno()
    watched: dict[int, str] = {}
    gone: list[str] = []
    listening = True
    while not gone:
        descriptors = [descriptor, *([stdin] if listening else []), *watched]
        ready, _, _ = select.select(descriptors, [], [])
        if descriptor in ready:
            return
        if stdin not in ready:
            gone = [name for pidfd, name in watched.items() if pidfd in ready]
            continue
        line = os.read(stdin, 1 << 16).splitlines()[-1:]
        # At the end of input, the process that started the server is gone, and the
        # server ends with it.
        listening = line not in ([], [b"null"])
        watched.clear()
        for entry in json.loads(line[0]) if listening else []:
            models[entry["pid"]] = ModelProcess(**entry)
            try:
                watched[os.pidfd_open(entry["pid"])] = entry["name"]
            except ProcessLookupError:
                gone.append(entry["name"])
    # A server that shuts down ends its models' processes, too: give it time to end.
    if select.select([descriptor], [], [], 1.0)[0]:
        return
    os.kill(server, signal.SIGKILL)
    select.select([descriptor], [], [])
    sys.stdout.write(
        f"E0000 reaper] the process of {', '.join(gone)} ended; without it, the server "
        "fails every other request, so the server was killed\n"
    )
    sys.stdout.flush()


def reap(server: int) -> None:
    """Wait for the server to end, then kill its processes and free shared memory.

    Args:
        server: Process id of the server, which leads its process group.
    """
    models: dict[int, ModelProcess] = {}
    wait(server, models)
    remaining = model_processes(server)
    for process in remaining:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    for process in [*models.values(), *remaining]:
        (SHARED_MEMORY / process.region).unlink(missing_ok=True)


if __name__ == "__main__":
    reap(int(sys.argv[1]))
