"""Child processes that end when the process that started them does."""

import ctypes
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def with_parent(parent: int) -> Callable[[], None]:
    """A ``preexec_fn`` that ends the child when ``parent`` dies, even by SIGKILL.

    The signal comes when the thread that started the child ends, so start children
    from a thread that lives as long as they should.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """

    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def stop(process: "subprocess.Popen[bytes]", timeout: float) -> None:
    """End a child: SIGTERM, and after ``timeout`` s SIGKILL; it is reaped."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nothing listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on that port now.

    Raises:
        OSError: There is no such address, or the port is not for us to have.
    """
    with socket.socket() as one:
        # As servers do: a port in TIME_WAIT is free for them.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True
