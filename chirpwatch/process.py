"""Child processes that end with their parent, and free ports for servers."""

import ctypes
import errno
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import BinaryIO, TypeVar

LOOK_LENGTH = 0.05
"""Time between two looks at a child that starts, s."""

Ready = TypeVar("Ready")

_PR_SET_PDEATHSIG = 1
_PORTS = range(10_000, 32_768)  # Above are Linux's ephemeral ports, see ip(7).
_libc = ctypes.CDLL(None, use_errno=True)
_random = random.SystemRandom()
_reserved: list[socket.socket] = []


def with_parent(parent: int) -> Callable[[], None]:
    """Return a ``preexec_fn`` that kills the child when ``parent`` ends.

    This holds even if the parent is killed by SIGKILL. The kernel sends the signal when
    the *thread* that started the child ends, so start children from a thread that lives
    as long as they should.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """

    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def process_pool(count: int) -> ProcessPoolExecutor:
    """Pool of worker processes that end with this process, even on SIGKILL.

    Workers are spawned, not forked, so tasks and results must be picklable. Submit from
    the main thread; see ``with_parent``.
    """
    return ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), _begin, (os.getpid(),)
    )


def _begin(parent: int) -> None:
    with_parent(parent)()


def start(
    command: Sequence[str],
    log: BinaryIO,
    environment: Mapping[str, str],
    process_group: int | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child process that writes to a log and ends with this process.

    ``with_parent`` says which thread may start it.

    Args:
        command: The program and its arguments.
        log: File for its stdout and stderr.
        environment: Variables on top of this process's own.
        process_group: As for ``subprocess.Popen``.

    Raises:
        OSError: It cannot be started.
    """
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=with_parent(os.getpid()),
        process_group=process_group,
    )


def wait_until_ready(look: Callable[[], Ready | None], timeout: float) -> Ready | None:
    """Poll a child process until it is ready.

    Args:
        look: Returns None until the child is ready, then a description of it; raises an
            error if the child failed.
        timeout: Longest wait, s.

    Returns:
        What ``look`` returned, or None after ``timeout``.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (ready := look()) is not None:
            return ready
        time.sleep(LOOK_LENGTH)
    return None


def stop(process: "subprocess.Popen[bytes]", timeout: float) -> None:
    """Stop a child process with SIGTERM, or SIGKILL after ``timeout`` s; reap it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Find distinct free ports for servers that this process will start.

    Nothing else takes a port while its server starts: the ports lie outside the
    system's ephemeral range, and this function reserves each for the life of this
    process.
    """
    found: list[int] = []
    while len(found) < count:
        port = _random.choice(_PORTS)
        if port_is_free(port, host) and _reserve(port):
            found.append(port)
    return found


def _reserve(port: int) -> bool:
    """Reserve a port until this process ends; False if another process holds it.

    The reservation is a name in the abstract socket namespace (unix(7)). It belongs to
    the same network namespace as the port, and the kernel drops it with the process.
    """
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0chirpwatch-port-{port}")
    except OSError as error:
        name.close()
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    _reserved.append(name)
    return True


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now.

    Raises:
        OSError: The host has no such address, or this user may not use the port.
    """
    with socket.socket() as one:
        # Servers set this option, too: a port in TIME_WAIT is free for them.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True
