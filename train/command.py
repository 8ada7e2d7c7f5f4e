"""The command line, which the files that it writes keep in their attributes."""

import shlex
import sys


def typed_command() -> str:
    """The command line as typed, without the path of the installed script."""
    return shlex.join(["chirpwatch", *sys.argv[1:]])
