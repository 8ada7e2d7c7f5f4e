"""How a file was made: the command that someone typed."""

import shlex
import sys


def typed_command() -> str:
    """The command as typed, without the path of the interpreter's script."""
    return shlex.join(["chirpwatch", *sys.argv[1:]])
