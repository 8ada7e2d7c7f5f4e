"""A test's requirements on the machine: without them it is skipped, or fails in CI."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"
"""Recorded strain and spectra; the folder's README lists contents and sources."""


def missing(what: str) -> NoReturn:
    """Skip the running test because something is missing, or fail it in CI."""
    if "CI" in os.environ:
        pytest.fail(f"CI must run every test: {what}")
    pytest.skip(what)


def shared_data(pattern: str, count: int = 1) -> list[Path]:
    """Files or folders of the shared data that match a pattern, sorted."""
    found = sorted(SHARED_DATA.glob(pattern))
    if len(found) != count:
        missing(
            f"expected {count} of {pattern} in {SHARED_DATA.resolve()}, "
            f"found {len(found)}"
        )
    return found


def gwosc_files() -> list[Path]:
    """32 s of strain around GW150914, of H1 and L1, from GWOSC."""
    return shared_data("*LOSC_4_V2*.hdf5", 2)


def program(name: str, package: str) -> str:
    """Path of a program; ``package`` is the package that provides it."""
    return shutil.which(name) or missing(f"no {name} on the PATH; install {package}")


def chromium() -> str:
    """Path of the browser: CHIRPWATCH_CHROMIUM, or ``chromium`` on the PATH."""
    return os.environ.get("CHIRPWATCH_CHROMIUM") or program("chromium", "chromium")
