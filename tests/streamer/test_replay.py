"""``chirpwatch replay``: results and error messages."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from chirpwatch.api.process import ApiProcess
from chirpwatch.background_file import write_background
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.signals import (
    ProjectedSignals,
    write_test_signals,
)
from chirpwatch.strain import NANOSECONDS
from chirpwatch.train.data.signals.injections import population_attributes
from chirpwatch.train.data.signals.population import InjectionSettings
from tests.builders import GW150914, START, slide_livetime
from tests.command import refusal

RATE = 2048
DURATION = 120


def chirpwatch(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "chirpwatch", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of white noise of H1 and L1."""
    path = tmp_path_factory.mktemp("strain") / "background.hdf5"
    rng = np.random.default_rng(5)
    strain = {ifo: 1e-22 * rng.standard_normal(DURATION * RATE) for ifo in ("H1", "L1")}
    write_background(path, "test", START, strain, RATE, {"simulated": True})
    return path


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signals that the energy network finds, and one that lies in the warm-up."""
    path = tmp_path_factory.mktemp("signals") / "signals.hdf5"
    times = np.array([4.0, 33.3, 61.01, 99.99])
    strain = np.zeros((4, 2, RATE), np.float32)
    strain[:, :, 1500] = 2e-20
    write_test_signals(
        path,
        f"{START}-{DURATION}",
        (0.0, 0.0),
        ProjectedSignals(
            ("H1", "L1"),
            RATE,
            strain,
            1500,
            START * NANOSECONDS + np.round(times * 1e9).astype(np.int64),
            {
                "snr": np.array([20.0, 21.0, 22.0, 23.0]),
                "mass_1": np.full(4, 40.0),
                "mass_2": np.full(4, 39.0),
                "redshift": np.full(4, 0.1),
            },
            num_rejected=12,
            attributes=population_attributes(
                InjectionSettings(snr_range=None), "a test"
            ),
        ),
    )
    return path


def test_replay_reports_injections_at_their_times(
    energy_server: TritonServer,
    api: ApiProcess,
    token: Path,
    background: Path,
    bursts: Path,
    tmp_path: Path,
) -> None:
    result_file = tmp_path / "result.json"
    done = chirpwatch(
        *("replay", "--background", background, "--signals", bursts),
        *("--triton", energy_server.address, "--slides", 8),
        *("--api", api.url, "--token-file", token),
        *("--directory", tmp_path, "--json", result_file),
        *("--far", 60000, "--request-length", 5),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(result_file.read_text())
    with api.client() as client:
        assert client.run(result["run"]).state == "complete"
        assert len(client.streams(result["run"])) == 2
        # The signals' population is passed on.
        volumes = client.volume(result["run"], [60000 * 366])
        assert (volumes.injections, volumes.rejected) == (3, 12)
        # An injection lies in the warm-up.
        assert volumes.not_analysed == 1
        assert volumes.volumes[0].volume > 0
    assert {
        "zero_lag",
        "livetime",
        "background",
        "injections",
        "throughput",
        "latency",
    } <= set(result)
    assert result["simulated"] is True

    warmup = Geometry().warmup_strides / 8
    assert result["livetime"]["zero_lag"] == DURATION - warmup
    # Kernel, filter and light travel time are 131 feature frames.
    slides = result["background"]["slides"]
    assert [slide["shifts"]["L1"] for slide in slides] == [
        k * 131 / 64 for k in range(1, 9)
    ]
    assert [slide["livetime"] for slide in slides] == [
        slide_livetime(8 * DURATION, k * 131) for k in range(1, 9)
    ]
    injections = result["injections"]
    assert injections["total"] == 4
    assert [one["snr"] for one in injections["found"]] == [21, 22, 23]
    for one in injections["found"]:
        assert abs(one["time"] - one["event"]["time"]) < 1 / 16
    assert [one["snr"] for one in injections["missed"]] == [20]
    for event in result["zero_lag"]:
        assert set(event) == {"time", "statistic", "far_per_year", "saturated"}


def test_every_file_of_signals_is_a_separate_set(
    energy_server: TritonServer,
    api: ApiProcess,
    token: Path,
    background: Path,
    bursts: Path,
    tmp_path: Path,
) -> None:
    result_file = tmp_path / "result.json"
    done = chirpwatch(
        *("replay", "--background", background, "--triton", energy_server.address),
        *("--signals", bursts, "--signals", bursts, "--slides", 8),
        *("--api", api.url, "--token-file", token, "--directory", tmp_path),
        *("--json", result_file, "--far", 60000),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(result_file.read_text())
    with api.client() as client:
        assert len(client.streams(result["run"])) == 3
    warmup = Geometry().warmup_strides / 8
    assert result["livetime"]["injections"] == 2 * (DURATION - warmup)
    injections = result["injections"]
    assert injections["total"] == 8
    assert sorted(one["snr"] for one in injections["found"]) == [21, 21, 22, 22, 23, 23]


def test_gw150914_is_the_loudest_event_of_its_strain(
    gwosc_files: list[Path], tmp_path: Path
) -> None:
    result_file = tmp_path / "result.json"
    done = chirpwatch(
        *("replay", "--strain", *gwosc_files, "--directory", tmp_path),
        *("--json", result_file),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(result_file.read_text())
    assert result["simulated"] is False
    loudest = max(result["zero_lag"], key=lambda event: event["statistic"])
    assert abs(loudest["time"] - GW150914) < 0.1
    assert loudest["saturated"]
    assert result["livetime"]["zero_lag"] == 32 - 7.875


def test_results_wait_while_the_api_is_down(
    energy_server: TritonServer, background: Path, tmp_path: Path
) -> None:
    common = ("--background", background, "--triton", energy_server.address)
    message = refusal(
        "replay",
        *common,
        "--slides",
        1,
        "--directory",
        tmp_path,
        "--api",
        "http://127.0.0.1:1",
    )
    assert "no API at http://127.0.0.1:1" in message
    assert "wait in" in message
    assert list((tmp_path / "outbox").glob("*.json"))
    # The next replay, which starts its own API, delivers them.
    done = chirpwatch("replay", *common, "--slides", 1, "--directory", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "outbox").iterdir()] == [".lock"]
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as api:
        with api.client() as client:
            runs = client.runs().runs
            assert [run.state for run in runs] == ["complete", "complete"]
            livetimes = {client.run(run.id).background.livetime for run in runs}
    assert livetimes == {slide_livetime(8 * DURATION, 131)}


def test_an_unreachable_server_is_named(background: Path, tmp_path: Path) -> None:
    message = refusal(
        "replay",
        *("--background", background, "--triton", "127.0.0.1:1"),
        *("--directory", tmp_path),
    )
    assert "no Triton server at 127.0.0.1:1" in message


def test_bad_strain_is_refused_before_anything_runs(
    energy_server: TritonServer, background: Path, tmp_path: Path
) -> None:
    common = ("--triton", energy_server.address, "--directory", tmp_path)
    message = refusal("replay", "--background", tmp_path / "none.hdf5", *common)
    assert "none.hdf5: no such file" in message

    short = tmp_path / "short.hdf5"
    strain = {ifo: np.zeros(5 * RATE) for ifo in ("H1", "L1")}
    write_background(short, "test", START, strain, RATE, {})
    assert "warm-up" in refusal("replay", "--background", short, "--slides", 0, *common)

    message = refusal(
        "replay", "--background", background, "--request-length", 0.3, *common
    )
    assert "expected a multiple of 0.125 s" in message

    message = refusal(
        "replay", "--background", background, "--signals", background, *common
    )
    assert "expected signals" in message


def test_nan_fails_the_run_with_its_time(
    energy_server: TritonServer, background: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt.hdf5"
    spoilt.write_bytes(background.read_bytes())
    with h5py.File(spoilt, "a") as file:
        file[f"test/{START}-{DURATION}/H1"][100 * RATE] = np.nan
    message = refusal(
        "replay",
        *("--background", spoilt, "--triton", energy_server.address),
        *("--slides", 1, "--directory", tmp_path),
    )
    assert f"found nan in H1 at GPS {START + 100}.000000" in message
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as api:
        with api.client() as client:
            (run,) = client.runs().runs
    assert run.state == "failed"
    assert "found nan" in (run.message or "")


def test_strain_of_another_rate_than_the_models_is_refused(
    energy_server: TritonServer, tmp_path: Path
) -> None:
    path = tmp_path / "background.hdf5"
    strain = {ifo: np.ones(DURATION * 4096) for ifo in ("H1", "L1")}
    write_background(path, "test", START, strain, 4096, {})
    message = refusal(
        "replay",
        *("--background", path, "--triton", energy_server.address),
        *("--directory", tmp_path),
    )
    assert "expected a sample rate of 2048 Hz, found 4096 Hz" in message


@pytest.mark.parametrize("option", ["--no-such-option", "--slides=-1", "--far=0"])
def test_bad_options_are_named(option: str) -> None:
    assert option.split("=")[0] in refusal("replay", option, statuses=(2,))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["triton", "api", "replay"])
def test_a_killed_part_is_named_and_the_next_run_works(
    repository: Path, background: Path, tmp_path: Path, victim: str
) -> None:
    arguments = [
        *("replay", "--background", str(background), "--repository", str(repository)),
        *("--directory", str(tmp_path), "--request-length", "1", "--slides", "8"),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "chirpwatch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        database = tmp_path / "results.db"
        deadline = time.monotonic() + 60
        while not (database.exists() and _chunks(database)):
            assert time.monotonic() < deadline, "expected results within the time limit"
            time.sleep(0.05)
        if victim == "replay":
            process.kill()
        else:
            os.kill(_child(process.pid, victim), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    if victim == "triton":
        assert process.returncode == 1
        log = tmp_path / "triton.log"
        assert f"the Triton server ended (killed by signal 9); its log, {log}" in errors
    if victim == "api":
        assert process.returncode == 1
        assert "the API ended" in errors
    assert "Traceback" not in errors

    done = chirpwatch(*arguments)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "outbox").glob("*.json"))
    # The killed replay's files still exist.
    text = (tmp_path / "triton.log").read_text()
    assert text.count("Started GRPCInferenceService") == 2
    with ApiProcess(database, log=tmp_path / "api.log") as api:
        with api.client() as client:
            new, old = (client.run(run.id) for run in client.runs().runs)
    assert new.state == "complete"
    if victim == "api":
        # Its results waited on disk, and are those of an undisturbed run.
        assert "wait in" in errors
        assert old.state == "complete"
        assert old.background == new.background
    else:
        assert old.state == "failed"
    if victim == "replay":
        assert old.message == "the process ended before the run did"


def _chunks(database: Path) -> bool:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            return connection.execute("select count(*) from chunks").fetchone()[0] > 2
        except sqlite3.OperationalError:
            return False


def _child(parent: int, name: str) -> int:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text().rsplit(")", 1)[1].split()
            command = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        wanted = b"tritonserver" if name == "triton" else b"api"
        if int(status[1]) == parent and any(
            part.endswith(wanted) for part in command[:3]
        ):
            return int(path.name)
    raise AssertionError(f"no process {name} under {parent}")
