"""Writes that wait while the disk is full."""

import errno
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from chirpwatch.errors import ChirpwatchError
from chirpwatch.streamer.live.ending import Ending

FULL_LENGTH = 1.0
"""Time between two attempts to write to a full disk, s."""

T = TypeVar("T")

log = logging.getLogger("chirpwatch.live")


class Disk:
    """Retries writes until the disk has space.

    The search pauses meanwhile; new frame files wait in their directories.

    Args:
        directory: Directory that is written to, for messages.
        ending: Cuts the wait short.
    """

    def __init__(self, directory: Path, ending: Ending) -> None:
        self._directory, self._ending = directory, ending

    def write(self, store: Callable[[], T]) -> T:
        """Call a function that writes to the disk, again if the disk is full.

        Args:
            store: Writes everything or nothing, so that it can be called again.

        Returns:
            What ``store`` returns.

        Raises:
            ChirpwatchError: The search was ended while the disk was full.
        """
        full = False
        while True:
            try:
                result = store()
            except (OSError, sqlite3.OperationalError) as error:
                if not _is_full(error):
                    raise
                if not full:
                    log.warning("the disk is full, waiting for space: %s", error)
                full = True
                if self._ending.wait(FULL_LENGTH):
                    raise ChirpwatchError(
                        f"{self._directory}: ended while the disk was full ({error}); "
                        "free some space, and give the same command to continue"
                    ) from None
            else:
                if full:
                    log.info("the disk has space again")
                return result


def _is_full(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
