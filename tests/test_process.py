"""Ports that servers are given before they start."""

import subprocess
import sys

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


def test_a_port_is_one_processes_until_that_process_ends() -> None:
    ours = free_ports(50)
    assert len(set(ours)) == 50
    # Not one that the system gives to whoever asks for any.
    assert max(ours) < 32_768
    port = port_of_another_process()
    assert port_of_another_process(*ours, port) == port
