"""Writing to a disk that may be full."""

import errno
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from chirpwatch.errors import ChirpwatchError
from chirpwatch.streamer.live.ending import Ending

FULL_LENGTH = 1.0
"""Time between two tries to write to a full disk, s."""

T = TypeVar("T")

log = logging.getLogger("chirpwatch.live")


class Disk:
    """Waits for room where the disk is full.

    Frames wait meanwhile in their directory.

    Args:
        directory: What is written to, for the error.
        ending: Cuts the wait short.
    """

    def __init__(self, directory: Path, ending: Ending) -> None:
        self._directory, self._ending = directory, ending

    def write(self, store: Callable[[], T]) -> T:
        """Do what writes to the disk, as soon as there is room.

        Args:
            store: Writes all or nothing, so that it can be tried again.

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
                    log.warning("waiting for room on the disk: %s", error)
                full = True
                if self._ending.wait(FULL_LENGTH):
                    raise ChirpwatchError(
                        f"{self._directory}: ended while the disk was full ({error}); "
                        "the same command goes on from where it was"
                    ) from None
            else:
                if full:
                    log.info("there is room on the disk again")
                return result


def _is_full(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
