"""Open data from GWOSC: selection, download, checks, resampling, output."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from gwpy.timeseries import TimeSeries
from scipy import signal as filters

from chirpwatch.background_file import read_background
from chirpwatch.commands.cli import cli
from chirpwatch.errors import (
    ConfigurationError,
    StrainError,
)
from chirpwatch.gwosc_file import read_gwosc
from chirpwatch.strain import resample
from chirpwatch.train.data.gwosc.choice import make_plan
from chirpwatch.train.data.gwosc.fetch import (
    Progress,
    fetch,
)
from chirpwatch.train.data.gwosc.plan import (
    FetchSettings,
    PlannedSegment,
)
from tests.train.gwosc_server import GwoscServer

IFOS = ("H1", "L1")
FLAGS = ("CBC_CAT1", "CBC_CAT2", "CBC_CAT3", "NO_CBC_HW_INJ")
START = 1240000000
FILE_LENGTH = 32
FILES = 4
END = START + FILES * FILE_LENGTH
RATE, SOURCE_RATE = 2048, 4096
EDGE_SIZE = 10
ROOT = Path(__file__).parents[2]


def publish(server: GwoscServer, strain: dict[str, np.ndarray]) -> None:
    """Publish a run with good data at all times, in files of 32 s."""
    server.runs["O3a"] = (START, END, ["H1", "L1", "V1"])
    for ifo, data in strain.items():
        for flag in FLAGS:
            server.flags[f"{ifo}_{flag}"] = [(START - 100, END + 100)]
        for i, part in enumerate(np.split(data, FILES)):
            server.add(ifo, START + i * FILE_LENGTH, part)


@pytest.fixture(scope="module")
def strain() -> dict[str, np.ndarray]:
    """128 s of two detectors at 4096 Hz: white noise plus a strong slow drift."""
    rng = np.random.default_rng(4)
    t = np.arange(FILES * FILE_LENGTH * SOURCE_RATE) / SOURCE_RATE
    drift = 1e-19 * np.sin(2 * np.pi * 0.13 * t)
    return {ifo: drift + 1e-21 * rng.standard_normal(len(t)) for ifo in IFOS}


@pytest.fixture
def server(strain: dict[str, np.ndarray]) -> Iterator[GwoscServer]:
    with GwoscServer() as server:
        publish(server, strain)
        yield server


def choose(server: GwoscServer, **changes: object) -> FetchSettings:
    values = {"run": "O3a", "min_duration": 8, "pad": 4.0, "splits": (0.5, 0.25, 0.25)}
    return FetchSettings(host=server.url, **(values | changes))


def same(found: np.ndarray, expected: np.ndarray, *edges: str) -> bool:
    """Equal to within rounding, except where the filter reaches an edge of the data."""
    first = EDGE_SIZE if "start" in edges else 0
    last = len(found) - (EDGE_SIZE if "stop" in edges else 0)
    difference = np.abs(found - expected)[first:last]
    return difference.max() < 1e-14 * np.abs(expected).max()


def content(path: Path) -> dict[str, bytes]:
    """Bytes of each strain dataset."""
    found: dict[str, bytes] = {}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("events"):
            found[name] = item[()].tobytes()

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def run_cli(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["fetch", *map(str, arguments)])


def start_cli(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chirpwatch", "fetch", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and their children inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_real_files_end_to_end(tmp_path: Path, gwosc_files: list[Path]) -> None:
    start, event = 1126259446, 1126259462.4
    out = tmp_path / "background.hdf5"
    with GwoscServer() as server:
        server.runs["O1"] = (1126051217, 1137254417, list(IFOS))
        for path in gwosc_files:
            server.add_file(path)
        for ifo in IFOS:
            for flag in FLAGS:
                server.flags[f"{ifo}_{flag}"] = [(start - 1000, start + 1000)]
        server.events = [
            {"name": "GW150914", "gps": event, "catalog": "GWTC-1", "version": 3}
        ]
        options = (out, "--run", "O1", "--min-duration", 8, "--splits", "0,0,1")
        options += ("--start", start - 100, "--end", start + 100, "--host", server.url)
        # With the default pad, the event takes all 32 s.
        refused = run_cli(*options)
        assert isinstance(refused.exception, StrainError)
        assert "shorter --min-duration or --pad" in str(refused.exception)
        assert list(tmp_path.iterdir()) == []
        assert run_cli(*options, "--pad", 4).exit_code == 0
    assert list(tmp_path.iterdir()) == [out]
    (whole,) = read_gwosc(gwosc_files, IFOS, RATE)
    first, second = read_background(out, "test", IFOS, RATE)
    assert (first.name, second.name) == (f"{start}-12", f"{start + 21}-11")
    assert not first.simulated
    for ifo in IFOS:
        expected = whole.strain[ifo]
        # At the cut around the event, the filter also used the data beyond the cut.
        assert same(first.strain[ifo][:], expected[: 12 * RATE], "start")
        assert same(second.strain[ifo][:], expected[21 * RATE :], "stop")
    with h5py.File(out) as file:
        assert list(file["events/name"].asstr()) == ["GW150914"]
        assert list(file["events/gps"]) == [event]
        assert (file.attrs["source"], file.attrs["run"]) == ("GWOSC", "O1")
        data = file[f"test/{start}-12/H1"]
        assert list(data.attrs["files"]) == [gwosc_files[0].name]
        digest = hashlib.sha256(gwosc_files[0].read_bytes()).hexdigest()
        assert list(data.attrs["sha256"]) == [digest] and data.fletcher32


def test_joined_files_are_resampled_like_a_single_file(
    tmp_path: Path, server: GwoscServer, strain: dict[str, np.ndarray]
) -> None:
    out = tmp_path / "out.hdf5"
    fetch(out, choose(server, splits=(0.0, 0.0, 1.0)))
    (segment,) = read_background(out, "test", IFOS, RATE)
    assert segment.duration == END - START
    band = filters.butter(8, [20, 700], "bandpass", fs=RATE, output="sos")
    for ifo in IFOS:
        found = segment.strain[ifo][:]
        whole = resample(strain[ifo], SOURCE_RATE, RATE, ifo)
        assert same(found, whole, "start", "stop")
        # gwpy's filter differs near the Nyquist frequency only.
        series = TimeSeries(strain[ifo], sample_rate=SOURCE_RATE, t0=START)
        ours, theirs = (
            filters.sosfiltfilt(band, data)[RATE:-RATE]
            for data in (found, series.resample(RATE).value)
        )
        assert np.std(ours - theirs) < 2e-3 * np.std(theirs)


def test_segments_have_good_data_in_all_detectors(
    tmp_path: Path, server: GwoscServer
) -> None:
    server.flags["H1_CBC_CAT2"] = [(START, START + 50), (START + 60, END)]
    server.flags["L1_CBC_CAT3"] = [(START + 10, START + 64), (START + 70, START + 126)]
    server.flags["L1_NO_CBC_HW_INJ"] = [
        (START - 5, START + 100),
        (START + 101, START + 106),
        (START + 107, END + 5),
    ]
    out = tmp_path / "out.hdf5"
    fetched = fetch(out, choose(server, max_duration=20))
    # Good are 40, 4 (too short), 30, 5 (too short) and 19 s. Train ends after 44 s of
    # the 89, valid after 67: in the third stretch, of which 4 and 3 s are too short.
    expected = [(10, 30), (30, 50), (74, 85), (85, 97), (107, 126)]
    splits = ["train", "train", "valid", "valid", "test"]
    assert fetched.segments == tuple(
        PlannedSegment(START + low, START + high, split)
        for (low, high), split in zip(expected, splits, strict=True)
    )
    written = [
        (split, segment.name)
        for split in ("train", "valid", "test")
        for segment in read_background(out, split, IFOS, RATE)
    ]
    assert written == [
        (split, f"{START + low}-{high - low}")
        for (low, high), split in zip(expected, splits, strict=True)
    ]


def test_requested_livetime_is_taken_from_the_start(server: GwoscServer) -> None:
    plan = make_plan(choose(server, livetime=40, splits=(1.0, 0.0, 0.0)))
    assert plan.segments == (PlannedSegment(START, START + 40, "train"),)
    assert [file.start - START for file in plan.files] == [0, 32, 0, 32]
    assert "requested 40 s, taken 40 s" in plan.describe()


def test_events_are_kept_out_of_all_catalogues_and_versions(
    tmp_path: Path, server: GwoscServer
) -> None:
    server.events = [
        {"name": "GW1", "gps": START + 40.4, "catalog": "GWTC-2", "version": 1},
        {"name": "GW1", "gps": START + 42.0, "catalog": "GWTC-2.1", "version": 2},
        {"name": "m2", "gps": START + 90.0, "catalog": "GWTC-3-marginal", "version": 1},
        # Outside the run, but within the pad around it.
        {"name": "GW3", "gps": END + 1.5, "catalog": "GWTC-3", "version": 1},
    ]
    out = tmp_path / "out.hdf5"
    fetched = fetch(out, choose(server, splits=(0.0, 0.0, 1.0)))
    spans = [(each.start - START, each.stop - START) for each in fetched.segments]
    assert spans == [(0, 36), (46, 86), (94, 125)]
    with h5py.File(out) as file:
        assert list(file["events/name"].asstr()) == ["GW1", "GW1", "m2", "GW3"]


def test_a_gap_in_a_file_cuts_the_segment(
    tmp_path: Path, server: GwoscServer, strain: dict[str, np.ndarray]
) -> None:
    data = strain["L1"][: FILE_LENGTH * SOURCE_RATE].copy()
    data[round(10.5 * SOURCE_RATE)] = np.nan
    server.add("L1", START, data)
    out = tmp_path / "out.hdf5"
    result = run_cli(
        *(out, "--run", "O3a", "--host", server.url, "--min-duration", 8),
        *("--splits", "1,0,0"),
    )
    assert result.exit_code == 0, result.exception
    assert "1 s lost to gaps" in result.output
    first, second = read_background(out, "train", IFOS, RATE)
    assert (first.name, second.name) == (f"{START}-10", f"{START + 11}-117")
    assert np.isfinite(second.strain["L1"][:]).all()


def test_a_split_left_empty_by_gaps_is_an_error(
    tmp_path: Path, server: GwoscServer
) -> None:
    for i in range(2, FILES):
        server.add(
            "L1", START + i * FILE_LENGTH, np.full(FILE_LENGTH * SOURCE_RATE, np.nan)
        )
    with pytest.raises(StrainError, match="for valid, found gaps"):
        fetch(tmp_path / "out.hdf5", choose(server))


@pytest.mark.parametrize("fault", ["503", "429", "truncate", "damage"])
def test_temporary_failures_are_retried(
    tmp_path: Path, server: GwoscServer, fault: str
) -> None:
    fetch(tmp_path / "intact.hdf5", choose(server))
    server.faults[f"H-H1_GWOSC_O3a_4KHZ_R1-{START}"] = [fault]
    server.faults["/timelines/L1_CBC_CAT2"] = ["500"]
    server.downloads.clear()
    out = tmp_path / "out.hdf5"
    fetch(out, choose(server), wait=0.01)
    assert len(server.downloads) == 2 * FILES + 1
    assert content(out) == content(tmp_path / "intact.hdf5")


@pytest.mark.parametrize(
    ("fault", "tried", "message"),
    [
        ("404", 1, "HTTP status 404"),
        ("500", 3, "HTTP status 500"),
        ("truncate", 3, "peer closed connection"),
        ("damage", 3, "in 3 tries; the last failed with: .*damaged"),
    ],
)
def test_a_lasting_failure_is_reported_with_its_url(
    tmp_path: Path, server: GwoscServer, fault: str, tried: int, message: str
) -> None:
    name = f"L-L1_GWOSC_O3a_4KHZ_R1-{START}-{FILE_LENGTH}.hdf5"
    # After different failures in a row, too, the file is requested `tried` times.
    server.faults[name] = [fault if fault == "404" else "truncate"] + [fault] * 10
    out = tmp_path / "out.hdf5"
    with pytest.raises(StrainError, match=message) as error:
        fetch(out, choose(server), tries=3, wait=0.01)
    assert f"{server.url}/archive/data/O3a/{name}" in str(error.value)
    assert server.downloads.count(name) == tried
    assert not out.exists()
    server.faults.clear()
    fetch(out, choose(server))
    assert out.exists()


def test_a_file_that_contradicts_its_listing_is_an_error(
    tmp_path: Path, server: GwoscServer
) -> None:
    name = f"L-L1_GWOSC_O3a_4KHZ_R1-{START}-{FILE_LENGTH}.hdf5"
    fast = server.add("L1", START, np.zeros(FILE_LENGTH * 16384), 16384)
    server.files[name] = server.files.pop(fast)
    with pytest.raises(StrainError, match=r"4096 Hz from .* of L1 at 16384 Hz"):
        fetch(tmp_path / "out.hdf5", choose(server), tries=1)
    server.files[name] = server.files[name.replace("L1", "H1").replace("L-", "H-")]
    with pytest.raises(StrainError, match=r"samples of L1 .* samples of H1"):
        fetch(tmp_path / "out.hdf5", choose(server), tries=2, wait=0.01)
    # The file may be damaged, so it was downloaded once more.
    assert server.downloads.count(name) == 3


def test_infinite_strain_is_an_error(tmp_path: Path, server: GwoscServer) -> None:
    data = np.zeros(FILE_LENGTH * SOURCE_RATE)
    data[5 * SOURCE_RATE + 3] = np.inf
    server.add("H1", START, data)
    with pytest.raises(StrainError, match=f"infinity at GPS {START + 5}"):
        fetch(tmp_path / "out.hdf5", choose(server))


def test_infinity_beside_a_segment_does_not_leak_into_it(
    tmp_path: Path, server: GwoscServer, strain: dict[str, np.ndarray]
) -> None:
    server.flags["H1_CBC_CAT2"] = [(START, START + 16), (START + 17, END)]
    found = []
    for value in (np.nan, np.inf):
        data = strain["H1"][: FILE_LENGTH * SOURCE_RATE].copy()
        data[16 * SOURCE_RATE + 2] = value
        server.add("H1", START, data)
        out = tmp_path / f"{value}.hdf5"
        fetch(out, choose(server))
        found.append(content(out))
    assert found[0] == found[1]
    (first, *_) = read_background(out, "train", IFOS, RATE)
    assert first.name == f"{START}-16" and np.isfinite(first.strain["H1"][:]).all()


def test_free_disk_space_is_checked_before_the_first_download(
    tmp_path: Path, server: GwoscServer
) -> None:
    length = 10**9  # 65 TB, and as much again
    server.runs["O3a"] = (START, START + length, list(IFOS))
    server.files.clear()
    for ifo in IFOS:
        name = f"{ifo[0]}-{ifo}_GWOSC_O3a_4KHZ_R1-{START}-{length}.hdf5"
        server.files[name] = b""
        for flag in FLAGS:
            server.flags[f"{ifo}_{flag}"] = [(START, START + length)]
    with pytest.raises(StrainError, match="expected 65536000 MB of free disk"):
        fetch(tmp_path / "out.hdf5", choose(server, max_duration=length))
    assert not server.downloads


def test_an_output_path_that_cannot_be_written_is_reported(
    tmp_path: Path, server: GwoscServer
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.hdf5.parts").write_text("")
    for name in ("file/out.hdf5", "taken.hdf5"):
        with pytest.raises(StrainError, match=f"{name}.parts: could not be written"):
            fetch(tmp_path / name, choose(server))


def test_many_jobs_write_the_same_file_as_a_single_job(
    tmp_path: Path, server: GwoscServer
) -> None:
    steps: list[Progress] = []
    fetch(tmp_path / "one.hdf5", choose(server), jobs=1, progress=steps.append)
    fetch(tmp_path / "many.hdf5", choose(server), jobs=6)
    assert content(tmp_path / "one.hdf5") == content(tmp_path / "many.hdf5")
    done = [step.files_done for step in steps]
    assert done == sorted(done)
    assert steps[-1] == Progress(
        2 * FILES, 2 * FILES, sum(map(len, server.files.values()))
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_fetch_resumes(
    tmp_path: Path, server: GwoscServer, how: signal.Signals
) -> None:
    out, last = tmp_path / "out.hdf5", f"L1_GWOSC_O3a_4KHZ_R1-{END - FILE_LENGTH}"
    server.faults[last] = ["trickle"]
    options = (out, "--run", "O3a", "--min-duration", 8, "--pad", 4, "--jobs", 1)
    options += ("--splits", "0.5,0.25,0.25", "--host", server.url)
    process = start_cli(*options)
    assert server.trickling.wait(60)
    with pytest.raises(StrainError, match="another fetch"):
        fetch(out, choose(server))
    process.send_signal(how)
    _, errors = process.communicate(timeout=20)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "same command again to go on" in errors
    assert not out.exists()
    parts = tmp_path / "out.hdf5.parts"
    assert len(list(parts.glob("*.part"))) == 2 * FILES - 1
    # One of the finished parts is lost.
    damaged = next(parts.glob("H-*.part"))
    damaged.write_bytes(damaged.read_bytes()[:-5000] + bytes(5000))
    with pytest.raises(StrainError, match="min_duration 9, found 8; use those"):
        fetch(out, choose(server, min_duration=9))
    server.downloads.clear()
    fetch(out, choose(server))
    assert len(server.downloads) == 2
    fetch(tmp_path / "undisturbed.hdf5", choose(server))
    assert content(out) == content(tmp_path / "undisturbed.hdf5")
    assert not parts.exists()


@pytest.mark.parametrize(("size", "kept"), [(100_000, 0), (1_500_000, 2 * FILES)])
def test_a_full_disk_is_reported_and_loses_nothing(
    tmp_path: Path, server: GwoscServer, size: int, kept: int
) -> None:
    """A limit on file sizes stands for a full disk, for a download or for OUT."""
    out = tmp_path / "out.hdf5"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        with pytest.raises(StrainError, match="the disk is full"):
            fetch(out, choose(server))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not out.exists()
    assert len(list((tmp_path / "out.hdf5.parts").glob("*.part"))) == kept
    server.downloads.clear()
    fetch(out, choose(server))
    assert len(server.downloads) == 2 * FILES - kept


def test_a_dry_run_reports_what_would_be_fetched(
    tmp_path: Path, server: GwoscServer
) -> None:
    server.events = [
        {"name": "GW1", "gps": START + 40.0, "catalog": "GWTC-2", "version": 1}
    ]
    result = run_cli(
        *(tmp_path / "out.hdf5", "--start", START, "--end", END, "--dry-run"),
        *("--host", server.url, "--min-duration", 8, "--pad", 4),
    )
    assert result.exit_code == 0, result.exception
    assert f"train {START} to {START + 36}  36 s" in result.output
    assert f"left out: GW1 at {START + 40.0}" in result.output
    assert "8 files to download, at most 0.01 GB" in result.output
    assert list(tmp_path.iterdir()) == []
    assert server.downloads == []


def test_data_that_gwosc_does_not_have_are_reported(server: GwoscServer) -> None:
    for changes, message in (
        ({"run": "O9"}, f"no O9; there are O3a \\({START} to {END}\\)"),
        ({"ifos": ("H1", "K1")}, "expected a run with H1, K1"),
        ({"start": START - 1}, "within one run"),
        ({"flags": ("CBC_CAT4",)}, "H1_CBC_CAT4.*404"),
        ({"min_duration": 129, "max_duration": 300}, "128 s have the flags"),
        ({"splits": (0.98, 0.01, 0.01)}, "for valid, found none"),
        ({"source_rate": 16384}, "expected files of"),
    ):
        with pytest.raises(StrainError, match=message):
            make_plan(choose(server, **changes))
    server.faults["/event-versions"] = ["500"] * 10
    with pytest.raises(StrainError, match="events failed: HTTP status 500 from http"):
        make_plan(choose(server))


def test_an_unreachable_host_is_reported() -> None:
    begin = time.monotonic()
    settings = FetchSettings(run="O3a", host="http://127.0.0.1:9")
    with pytest.raises(StrainError, match=r"asking http://127.0.0.1:9 for runs failed"):
        make_plan(settings, tries=3, wait=0.1)
    assert time.monotonic() - begin > 0.3


def test_an_existing_file_is_not_overwritten(
    tmp_path: Path, server: GwoscServer
) -> None:
    out = tmp_path / "out.hdf5"
    out.write_bytes(b"precious")
    with pytest.raises(StrainError, match="exists already"):
        fetch(out, choose(server))
    assert out.read_bytes() == b"precious"


def test_segments_that_overlap_are_an_error(
    tmp_path: Path, server: GwoscServer
) -> None:
    out = tmp_path / "out.hdf5"
    server.faults["L-L1"] = ["404"]
    with pytest.raises(StrainError, match="404"):
        fetch(out, choose(server))
    path = tmp_path / "out.hdf5.parts" / "plan.json"
    plan = json.loads(path.read_text())
    plan["segments"][1]["start"] -= 1
    path.write_text(json.dumps(plan))
    with pytest.raises(StrainError, match="do not overlap, found train"):
        fetch(out, choose(server))


def test_settings_out_of_range_are_an_error() -> None:
    for changes in (
        {},
        {"start": 5, "end": 5},
        {"run": "O3a", "ifos": ("H1", "H1")},
        {"run": "O3a", "splits": (0.5, 0.5, 0.5)},
        {"run": "O3a", "splits": (1.5, -0.5, 0.0)},
        {"run": "O3a", "min_duration": 4000},
        {"run": "O3a", "livetime": 10},
        {"run": "O3a", "source_rate": 2048},
    ):
        with pytest.raises(ConfigurationError, match="fetch: expected") as error:
            FetchSettings(**changes)
        assert "flags" not in str(error.value)
