"""A lock that one process holds and that ends with it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chirpwatch.errors import ChirpwatchError


@contextmanager
def locked(path: Path, refusal: ChirpwatchError) -> Iterator[None]:
    """Hold a lock file, made where it is missing.

    Args:
        path: The file, in a directory that exists.
        refusal: Raised if another process, or this one, holds it already.

    Raises:
        ChirpwatchError: ``refusal``; or, of its class, that the file system has no
            locks.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        except OSError as error:
            raise type(refusal)(
                f"{path}: expected a file system with locks: {error}; use a directory "
                "elsewhere"
            ) from None
        yield
