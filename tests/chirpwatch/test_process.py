"""Free ports for servers, and processes that end with their parent."""

import subprocess
import sys

import psutil
import pytest

from chirpwatch.process import free_ports

PROGRAM = (
    "import sys\n"
    "from chirpwatch import process\n"
    "process._PORTS = [int(word) for word in sys.argv[1:]] or process._PORTS\n"
    "print(*process.free_ports(1))\n"
)


def port_of_another_process(*among: int) -> int:
    command = [sys.executable, "-c", PROGRAM, *map(str, among)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return int(done.stdout)


def test_a_port_is_reserved_until_its_process_ends() -> None:
    ours = free_ports(50)
    assert len(set(ours)) == 50
    # Not an ephemeral port, which the system may give to any program.
    assert max(ours) < 32_768
    port = port_of_another_process()
    assert port_of_another_process(*ours, port) == port


PARENT = """
import os
import time
from chirpwatch.process import process_pool

if __name__ == "__main__":
    pool = process_pool(2)
    print(*pool.map(abs, [-1, -2]), flush=True)
    pool.map(time.sleep, [600, 600])
    print(*pool._processes, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_pool_processes_end_with_their_parent(tmp_path, end) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"1 2\n"
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2 and all(child.is_running() for child in children)
    getattr(parent, end)()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
