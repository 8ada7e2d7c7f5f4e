"""Clears up after a server that was killed: ``python -m serve.reaper PID``.

The processes that run the server's Python-based backends outlive a server that is
killed, and so does the memory they share with it. This waits, without polling, for the
server to end however it may, ends what is left of its process group, and removes its
shared memory.
"""

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is where Triton keeps it
REGION = "triton_onnxruntime_backend_shm_region_"


def reap(server: int) -> None:
    """Wait for the server, then clear up.

    Args:
        server: Process id of the server, which leads its process group.
    """
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(server)
        select.select([descriptor], [], [])
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            pid = int(status.parent.name)
            if os.getpgid(pid) != server or pid == server:
                continue
            arguments = status.read_bytes().decode(errors="replace").split("\0")
            os.kill(pid, signal.SIGKILL)
            for argument in arguments:
                if argument.startswith(REGION):
                    (SHARED_MEMORY / Path(argument).name).unlink(missing_ok=True)


if __name__ == "__main__":
    reap(int(sys.argv[1]))
