"""Coverage-guided fuzzing of the readers of files.

    python -m tests.project.fuzz_readers READER

libFuzzer, by atheris, changes the bytes of a valid file and keeps what reaches new
code. Whatever comes, a reader gives data or a ChirpwatchError; anything else, a crash,
or more than 10 s ends it with an error, and leaves the file that did it. Arguments
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
    """Two seconds of strain."""
    data = {ifo: np.linspace(0, 1e-21, SIZE) for ifo in IFOS}
    background_file.write_background(
        path, "test", START, data, RATE, {"simulated": True}
    )


def write_gwosc(path: Path) -> None:
    """Strain as GWOSC publishes it, compressed."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "strain/Strain", data=np.linspace(0, 1e-21, SIZE), compression="gzip"
        )
        data.attrs["Xstart"], data.attrs["Xspacing"] = float(START), 1 / RATE
        file["meta/Detector"] = b"H1"


def write_signals(path: Path) -> None:
    """Two mergers, projected."""
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
    """All of it."""
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
            assert path.name in str(error), "an error that does not say of what"
        finally:
            path.unlink()

    # What an address space of 4 GB does not hold is refused, not tried.
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=4096", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
