"""HDF5 files: damaged ones are refused, written ones appear whole or not at all."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from chirpwatch.atomic import replacing
from chirpwatch.errors import (
    ChirpwatchError,
    StrainError,
)


@contextmanager
def damaged(
    where: str | Path, refusal: type[ChirpwatchError] = StrainError
) -> Iterator[None]:
    """What HDF5 and numpy say of a damaged file, as a refusal that says which.

    Args:
        where: The file, or its part, as a message names it.
        refusal: The exception.

    Raises:
        ChirpwatchError: ``refusal``.
    """
    try:
        yield
    # HDF5's own errors are of any of these kinds, and so is what follows from a shape,
    # type or attribute that nobody wrote.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise refusal(
            f"{where}: damaged, or not laid out as expected: {error}"
        ) from error


class _SilentFile(io.FileIO):
    """A file that takes everything in silence after an error of the system.

    HDF5 cannot close a file that it cannot write: on a full disk it would crash. The
    error is kept instead, and asked for.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, or none after an error."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view) and self.error is None:
                written += super().write(view[written:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size; nothing happens after an error."""
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read; what was lost after an error reads as zeros."""
        view = memoryview(buffer).cast("B")
        count = super().readinto(view) or 0
        if self.error is not None:
            view[count:] = bytes(len(view) - count)
            return len(view)
        return count


class AmendedFile(h5py.File):  # type: ignore[misc]  # h5py has no types
    """An HDF5 file that ``writing`` or ``amending`` opened."""

    def __init__(self, handle: _SilentFile, mode: str) -> None:
        super().__init__(handle, mode)
        self._handle = handle

    @property
    def failed(self) -> bool:
        """Whether something could not be written."""
        return self._handle.error is not None

    def check(self) -> None:
        """Stop where the disk is full, after a large piece rather than at the end.

        Raises:
            OSError: Something could not be written.
        """
        self.flush()
        if self._handle.error is not None:
            raise self._handle.error


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[AmendedFile]:
    """Open an HDF5 file that can be closed when the disk is full.

    Args:
        path: The file, which has to be there.
        mode: ``w`` to begin anew, ``a`` to add to an HDF5 file.

    Raises:
        OSError: Something could not be written.
    """
    with _SilentFile(path, "r+") as handle:
        with AmendedFile(handle, mode) as file:
            yield file
        if handle.error is not None:
            raise handle.error


@contextmanager
def amending(
    path: str | Path, refusal: type[ChirpwatchError] = StrainError
) -> Iterator[AmendedFile]:
    """Open a copy of an HDF5 file, or a new one, that takes its place on success.

    A file that is there already is copied whole, by the system and not through memory:
    what belongs together is best added together.

    Args:
        path: The file.
        refusal: The exception for a file that cannot be read or written.

    Raises:
        ChirpwatchError: ``refusal``; ``path`` is as it was, or as another command that
            changed it meanwhile left it.
    """
    path = Path(path)
    foreign = None
    try:
        before = _identity(path)
        with replacing(path) as temporary:
            if path.exists():
                shutil.copyfile(path, temporary)
            # An empty file is no HDF5 file: "a" would refuse it.
            mode = "a" if temporary.stat().st_size else "w"
            if mode == "a":
                try:
                    h5py.File(temporary, "r").close()
                except OSError as error:
                    raise refusal(f"{path}: expected an HDF5 file: {error}") from None
            with writing(temporary, mode) as file:
                try:
                    yield file
                except OSError as error:
                    # Of something that the caller reads, where all was written here.
                    foreign = None if file.failed else error
                    raise
            if _identity(path) != before:
                raise refusal(
                    f"{path}: another command changed it meanwhile; it stays as that "
                    "left it: run this command again"
                )
    except OSError as error:
        if error is foreign:
            raise
        raise refusal(
            f"{path}: could not be written, and is as it was before: {error}; look for "
            "room on the disk and for the right to write there"
        ) from error


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from another of its name, and from itself with other content."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def open_hdf5(path: str | Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        StrainError: No such file, or no HDF5.
    """
    if not Path(path).exists():
        raise StrainError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StrainError(f"{path}: expected an HDF5 file: {error}") from None
