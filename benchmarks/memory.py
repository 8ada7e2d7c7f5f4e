"""Memory of a server and its models' processes; shared pages count once."""

import threading
from pathlib import Path
from typing import Self


def server_memory(pid: int) -> float:
    """Memory of a server and its models' processes, MiB."""
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
    """Most memory of a server and its models' processes while this context lasts.

    MiB, in `mib`; shared pages count once. Looks every 20 ms: a server frees what a
    request took before it answers.
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
