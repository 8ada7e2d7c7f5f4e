"""What a test needs of the machine: without it the test skips, and fails in CI."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"
"""Recorded strain and spectra; its README says what and from where."""


def missing(what: str) -> NoReturn:
    """Skip the running test for want of something, or fail it where CI is set."""
    if "CI" in os.environ:
        pytest.fail(f"CI must run every test: {what}")
    pytest.skip(what)


def shared_data(pattern: str, count: int = 1) -> list[Path]:
    """Files, or folders, of the shared data that match a pattern, in order."""
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
    """A program on the PATH, by the package that has it."""
    return shutil.which(name) or missing(f"no {name} on the PATH; install {package}")


def chromium() -> str:
    """The browser; CHIRPWATCH_CHROMIUM may name one."""
    return os.environ.get("CHIRPWATCH_CHROMIUM") or program("chromium", "chromium")
