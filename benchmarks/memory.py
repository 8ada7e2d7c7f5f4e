"""Memory of Triton and its models' processes (proportional set size, PSS)."""

import threading
from pathlib import Path
from typing import Self


def server_memory(pid: int) -> float:
    """PSS of a server and its child processes, MiB; shared pages count once."""
    return _memory(_processes(pid))


def _processes(pid: int) -> set[str]:
    children = [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return {str(pid), *children}


def _memory(processes: set[str]) -> float:
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(x.split()[1]) for x in lines if x.startswith("Pss:"))
    return total / 1024


class PeakMemory:
    """Measures the peak PSS of a server and its child processes within the context.

    Samples every 20 ms, since the server frees a request's memory before it replies.

    Attributes:
        mib: The peak, MiB; shared pages count once.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        processes = _processes(self.pid)
        while not self._ended.wait(0.02):
            self.mib = max(self.mib, _memory(processes))
