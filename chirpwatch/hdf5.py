"""Opening HDF5 files: damage is reported as an error, and writes are atomic."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from chirpwatch.atomic import replacing
from chirpwatch.errors import ChirpwatchError, StrainError


@contextmanager
def report_damage(
    where: str | Path, error_class: type[ChirpwatchError] = StrainError
) -> Iterator[None]:
    """Context manager that turns errors from reading a damaged file into our own.

    Args:
        where: The file, or the part of it, for the message.
        error_class: Class of the error to raise.

    Raises:
        ChirpwatchError: An ``error_class``, if h5py or NumPy fail in the context.
    """
    try:
        yield
    # h5py raises any of these for damaged files; an unexpected shape, type or missing
    # attribute raises them further down, in our code or NumPy's.
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
        raise error_class(
            f"{where}: damaged, or not laid out as expected: {error}"
        ) from error


class _SilentFile(io.FileIO):
    """File that stores the first write error instead of raising it.

    HDF5 cannot close a file whose writes fail: on a full disk, it would crash the
    process. So later writes pretend to succeed, and ``error`` is checked afterwards.

    Attributes:
        error: The first error from writing or resizing, or None.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all data; after an error, discard it. Return its size in bytes."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view) and self.error is None:
                written += super().write(view[written:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size; after an error, do nothing."""
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; after an error, bytes that were discarded read as 0."""
        view = memoryview(buffer).cast("B")
        count = super().readinto(view) or 0
        if self.error is not None:
            view[count:] = bytes(len(view) - count)
            return len(view)
        return count


class WritableFile(h5py.File):  # type: ignore[misc]  # h5py has no types
    """HDF5 file opened by ``writing`` or ``amending``, which survives a full disk."""

    def __init__(self, handle: _SilentFile, mode: str) -> None:
        super().__init__(handle, mode)
        self._handle = handle

    @property
    def failed(self) -> bool:
        """Whether a write has failed."""
        return self._handle.error is not None

    def check(self) -> None:
        """Raise the error of a failed write now, instead of when the file is closed.

        Call it after each large write, so that a full disk is noticed early.

        Raises:
            OSError: A write has failed, for example because the disk is full.
        """
        self.flush()
        if self._handle.error is not None:
            raise self._handle.error


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[WritableFile]:
    """Open an existing file for writing HDF5, and raise write errors on closing it.

    Args:
        path: The file, which must exist; it may be empty in mode ``w``.
        mode: ``w`` to overwrite it, ``a`` to add to the HDF5 file.

    Raises:
        OSError: A write failed, for example because the disk is full.
    """
    with _SilentFile(path, "r+") as handle:
        with WritableFile(handle, mode) as file:
            yield file
        if handle.error is not None:
            raise handle.error


@contextmanager
def amending(
    path: str | Path, error_class: type[ChirpwatchError] = StrainError
) -> Iterator[WritableFile]:
    """Open an HDF5 file to add to it; changes take effect together, on success.

    The context writes to a copy, which replaces ``path`` at the end. Every use copies
    the complete file, so add all related data in one context.

    Args:
        path: The file; it is created if it does not exist.
        error_class: Class of the error for a file that cannot be read or written.

    Raises:
        ChirpwatchError: An ``error_class``; ``path`` is then unchanged, except by
            another command that wrote to it at the same time.
    """
    path = Path(path)
    callers_error = None
    try:
        before = _identity(path)
        with replacing(path) as temporary:
            if path.exists():
                shutil.copyfile(path, temporary)
            # h5py cannot open an empty file in mode "a".
            mode = "a" if temporary.stat().st_size else "w"
            if mode == "a":
                try:
                    h5py.File(temporary, "r").close()
                except OSError as error:
                    raise error_class(
                        f"{path}: expected an HDF5 file: {error}"
                    ) from None
            with writing(temporary, mode) as file:
                try:
                    yield file
                except OSError as error:
                    # Unless a write failed here, it comes from another file, which the
                    # caller's code reads in this context.
                    callers_error = None if file.failed else error
                    raise
            if _identity(path) != before:
                raise error_class(
                    f"{path}: another command changed the file at the same time; this "
                    "command's changes were discarded: run it again"
                )
    except OSError as error:
        if error is callers_error:
            raise
        raise error_class(
            f"{path}: could not be written, and is unchanged: {error}; check the free "
            "disk space and the permissions"
        ) from error


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Inode, modification time and size, which change when a file is rewritten."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def open_hdf5(
    path: str | Path, error_class: type[ChirpwatchError] = StrainError
) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        ChirpwatchError: An ``error_class``; the file does not exist, or is not an HDF5
            file.
    """
    if not Path(path).exists():
        raise error_class(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise error_class(f"{path}: expected an HDF5 file: {error}") from None
