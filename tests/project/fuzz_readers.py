"""Coverage-guided fuzzing of the file readers.

    python -m tests.project.fuzz_readers READER

libFuzzer (through atheris) changes the bytes of a valid file, and keeps changes that
reach new code. A reader must return data or raise a ChirpwatchError. Any other error, a
crash, or more than 10 s ends the fuzzing with an error, and the file is kept. Arguments
after the reader's name are libFuzzer's, such as ``-max_total_time=60``.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import h5py
import numpy as np

with atheris.instrument_imports(include=["chirpwatch"]):
    from chirpwatch import background_file, gwosc_file, signals
    from chirpwatch.errors import ChirpwatchError

START, SIZE, RATE = 1_262_304_000, 4096, 2048
IFOS = ("H1", "L1")
SEGMENT = f"{START}-{SIZE // RATE}"


def write_background(path: Path) -> None:
    """Write two seconds of strain in our format."""
    data = {ifo: np.linspace(0, 1e-21, SIZE) for ifo in IFOS}
    background_file.write_background(
        path, "test", START, data, RATE, {"simulated": True}
    )


def write_gwosc(path: Path) -> None:
    """Write compressed strain in GWOSC's format."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "strain/Strain", data=np.linspace(0, 1e-21, SIZE), compression="gzip"
        )
        data.attrs["Xstart"], data.attrs["Xspacing"] = float(START), 1 / RATE
        file["meta/Detector"] = b"H1"


def write_signals(path: Path) -> None:
    """Write a signal file with two mergers."""
    columns = {name: np.ones(2) for name in ("snr", "mass_1", "mass_2")}
    found = signals.ProjectedSignals(
        IFOS,
        RATE,
        np.zeros((2, 2, 512), np.float32),
        256,
        np.array([START + 1, START + 2]) * 10**9,
        columns,
        attributes={"simulated": True},
    )
    signals.write_test_signals(path, SEGMENT, (0.0, 0.0), found)


def read_background(path: Path) -> None:
    """Read a complete background file."""
    for segment in background_file.read_background(path, "test", IFOS, RATE):
        for ifo in IFOS:
            segment.read(ifo, 0, min(segment.size, 1 << 20))


READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "background": (write_background, read_background),
    "gwosc": (write_gwosc, gwosc_file.read_gwosc_file),
    "signals": (
        write_signals,
        lambda path: signals.read_test_signals(path, SEGMENT, (0.0, 0.0)),
    ),
}


def main() -> None:
    """Fuzz one reader."""
    write, read = READERS[sys.argv.pop(1)]
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    path = folder / f"input-{os.getpid()}.hdf5"
    corpus = folder / "corpus"
    corpus.mkdir()
    write(corpus / "valid")
    read(corpus / "valid")

    def once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except ChirpwatchError as error:
            assert path.name in str(error), "expected an error that names the file"
        finally:
            path.unlink()

    # With 4 GB of address space, sizes beyond this must be refused.
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=4096", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
