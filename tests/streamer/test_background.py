"""``chirpwatch background`` gives the same results whatever is killed meanwhile."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from distributed import LocalCluster

import tests.command
from chirpwatch.api.client import ApiClient
from chirpwatch.api.process import ApiProcess
from chirpwatch.background_file import write_background
from chirpwatch.commands.cli import main
from chirpwatch.process import free_ports
from chirpwatch.serve.embedded import TritonServer
from tests.builders import START
from tests.streamer.between import Between

RATE = 2048
LENGTH = 1600
STRETCH_LENGTH = 40
JOBS = LENGTH // STRETCH_LENGTH
SLIDES = 8


@pytest.fixture(scope="module")
def strain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """White noise of H1 and L1, with a gap between two segments."""
    return write_noise(tmp_path_factory.mktemp("strain") / "background.hdf5", LENGTH)


def write_noise(path: Path, length: int) -> Path:
    rng = np.random.default_rng(5)
    for t0 in (START, START + length):
        data = {
            ifo: 1e-22 * rng.standard_normal(length // 2 * RATE) for ifo in ("H1", "L1")
        }
        write_background(path, "test", t0, data, RATE, {"simulated": True})
    return path


@dataclass
class Running:
    """The command as a subprocess, which tests watch and kill."""

    strain: Path
    directory: Path
    options: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        options = {
            "--background": self.strain,
            "--slides": SLIDES,
            "--stretch-length": f"{STRETCH_LENGTH}s",
            "--workers": 2,
            "--directory": self.directory,
        } | self.options
        return ["background", *(str(word) for pair in options.items() for word in pair)]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "chirpwatch", *self.arguments()]

    def __enter__(self) -> "Running":
        self.process = subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | self.environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def done(self) -> int:
        """Jobs whose results are stored."""
        return len(list((self.directory / "jobs").glob("[0-9]*.npz")))

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if self.process.poll() is not None:
                pytest.fail(f"ended early: {self.process.communicate()[0]}")
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def children(self, what: str) -> list[psutil.Process]:
        """Child processes with a word in their command line."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any(what in word for word in child.cmdline()):
                        found.append(child)
        return found

    def end(self, status: int = 0) -> str:
        output, _ = self.process.communicate(timeout=240)
        assert self.process.returncode == status, output
        assert "Traceback" not in output
        return output


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler with two workers, shared by the runs that need no other."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture
def run(
    strain: Path,
    tmp_path: Path,
    energy_server: TritonServer,
    api: ApiProcess,
    token: Path,
) -> Running:
    """A run that has not started."""
    options = {
        "--triton": energy_server.address,
        "--api": api.url,
        "--token-file": token,
        "--json": tmp_path / "result.json",
    }
    return Running(strain, tmp_path / "run", options)


@pytest.fixture
def own_api(run: Running, tmp_path: Path) -> Iterator[ApiProcess]:
    """An API for this run only, to be killed."""
    with ApiProcess(tmp_path / "api.db", log=tmp_path / "api.log") as process:
        run.options["--api"] = process.url
        Path(run.options["--token-file"]).write_text(process.token)
        yield process


@contextlib.contextmanager
def again(api: ApiProcess, folder: Path) -> Iterator[ApiClient]:
    """Restart the killed API at the same address."""
    api.stop()
    port = int(api.url.rpartition(":")[2])
    process = ApiProcess(folder / "api.db", port, folder / "api.log", api.token)
    with process, process.client() as client:
        yield client


def datasets(directory: Path) -> dict[str, bytes]:
    """Bytes of all datasets in the results file."""
    found: dict[str, bytes] = {}
    with h5py.File(directory / "background.hdf5") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def blocks(client: ApiClient, directory: Path) -> list[dict]:
    """The API's blocks of the run in a directory."""
    run = json.loads((directory / "plan.json").read_text())["run"]
    found = [block.model_dump() for block in client.blocks(run)]
    return sorted(found, key=lambda block: block["number"])


@dataclass
class Expected:
    datasets: dict[str, bytes]
    blocks: list[dict]

    def check(self, run: Running, client: ApiClient) -> None:
        """Check that a run has the expected results, and that none is stored twice."""
        assert datasets(run.directory) == self.datasets
        assert blocks(client, run.directory) == self.blocks
        assert [block.number for block in client.blocks(self.run_id(run))] == list(
            range(JOBS)
        )
        assert client.run(self.run_id(run)).state == "complete"
        waiting = (run.directory / "outbox").glob("*.json")
        assert not list(waiting)

    @staticmethod
    def run_id(run: Running) -> str:
        return json.loads((run.directory / "plan.json").read_text())["run"]


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory,
    strain: Path,
    energy_server: TritonServer,
    api: ApiProcess,
) -> Expected:
    """Results of an undisturbed run, with one worker and one job at a time."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "token").write_text(api.token)
    options = {
        "--triton": energy_server.address,
        "--api": api.url,
        "--token-file": folder / "token",
        "--workers": 1,
    }
    with Running(strain, folder / "run", options) as run:
        run.end()
    with api.client() as client:
        return Expected(datasets(run.directory), blocks(client, run.directory))


def test_a_run_reports_its_progress_and_results(run, expected, api):
    with run:
        output = run.end()
    for words in (
        "background.hdf5: 2 segment(s), 1600 s (simulated)",
        "stretches  40, 1600 s",
        "slides     320 in all, 2.04688 s apart",
        "jobs       40",
        "takes about",
        "Thresholds",
        "end of the IFAR curve",
        f"The page: {api.url}/",
    ):
        assert words in output
    result = json.loads(Path(run.options["--json"]).read_text())
    with h5py.File(run.directory / "background.hdf5") as file:
        assert result["livetime"] == file.attrs["livetime"]
        assert result["livetime"] == file["slides/livetime"][:].sum()
        assert result["events"] == len(file["events/statistic"]) > 500
        assert file.attrs["simulated"]
        statistic = file["events/statistic"][:].astype(float)
        loudest = np.sort(statistic)[::-1][:10]
        stretch = file["events/stretch"][:]
        stride = file["events/stride"][:].astype(np.int64)
        edges = file["stretches/start_ns"][:][stretch] + (stride + 1) * 10**9 // 8
        # The merger's frame of the energy network lies within kernel and filter.
        assert np.all((edges - file["events/time_ns"][:]) / 1e9 < 2)
        assert np.all(edges > file["events/time_ns"][:])
        np.testing.assert_array_equal(
            file["slides/stretch"][:][file["events/slide"][:]], stretch
        )
        np.testing.assert_allclose(
            file["slides/shifts"][:SLIDES, 1], np.arange(1, SLIDES + 1) * 131 / 64
        )
        assert not file["slides/shifts"][:, 0].any()
    assert [event["statistic"] for event in result["loudest"]] == loudest.tolist()
    # Over four hours: a FAR of one per hour is reached, of one per day it is not.
    (hourly,) = result["thresholds"]
    assert hourly["rate"] == "one an hour"
    above = (statistic >= hourly["statistic"]).sum()
    assert 1 <= hourly["seconds"] <= above
    assert hourly["events"] == above == int(result["livetime"] / 3600) - 1
    with api.client() as client:
        expected.check(run, client)
        assert sum(b["events"] for b in expected.blocks) == result["events"]
        total = sum(b["livetime"] for b in expected.blocks)
        assert total == pytest.approx(result["livetime"])


def test_a_dry_run_leaves_nothing(run, capsys):
    run.options["--dry-run"] = ""
    with pytest.raises(SystemExit) as ended:
        main([word for word in run.arguments() if word])
    assert ended.value.code == 0
    assert "slides     320 in all" in capsys.readouterr().out
    assert not run.directory.exists()


def test_requested_livetime_is_reached(run, cluster):
    run.options["--scheduler"] = cluster.scheduler_address
    command = run.command()
    at = command.index("--slides")
    command[at : at + 2] = ["--livetime", "2.5h"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(Path(run.options["--json"]).read_text())
    assert 9000 <= result["livetime"] <= 9000 + STRETCH_LENGTH


def test_a_killed_worker_changes_nothing(run, expected, api):
    with run:
        run.wait_until(lambda: run.done() >= 3)
        run.children("spawn_main")[0].kill()
        run.end()
    with api.client() as client:
        expected.check(run, client)


def test_a_killed_api_changes_nothing(run, expected, own_api, cluster, tmp_path):
    run.options["--scheduler"] = cluster.scheduler_address
    with run:
        run.wait_until(lambda: run.done() >= 3)
        os.kill(own_api.pid, signal.SIGKILL)
        run.wait_until(lambda: run.done() >= 12)
        # Otherwise it would end before the API is back.
        run.process.send_signal(signal.SIGSTOP)
        assert run.done() < JOBS
        with again(own_api, tmp_path) as client:
            run.process.send_signal(signal.SIGCONT)
            run.end()
            expected.check(run, client)


def test_results_wait_for_an_api_that_does_not_come_back(
    run, expected, own_api, cluster, tmp_path
):
    run.options["--scheduler"] = cluster.scheduler_address
    with run:
        run.wait_until(lambda: run.done() >= 3)
        os.kill(own_api.pid, signal.SIGKILL)
        output = run.end(status=1)
        assert f"no API at {own_api.url}" in output
        assert "wait in" in output
    assert run.done() == JOBS
    with again(own_api, tmp_path) as client, run:
        assert f"{JOBS} jobs are done already" in run.end()
        expected.check(run, client)


@pytest.mark.slow
def test_an_api_that_lost_its_data_gets_them_again(run, expected, cluster, tmp_path):
    run.options["--scheduler"] = cluster.scheduler_address
    with run:
        run.end()
    with ApiProcess(tmp_path / "new.db", log=tmp_path / "new.log") as new:
        run.options["--api"] = new.url
        Path(run.options["--token-file"]).write_text(new.token)
        with run:
            run.end()
        with new.client() as client:
            expected.check(run, client)


@pytest.mark.slow
def test_a_killed_server_is_restarted(run, expected, api, energy_repository):
    del run.options["--triton"]
    run.options["--repository"] = energy_repository
    with run:
        run.wait_until(lambda: run.done() >= 3)
        (server,) = [
            child
            for child in run.children("tritonserver")
            if "python" not in child.name()
        ]
        server.kill()
        output = run.end()
    assert "killed by signal 9" in output
    with api.client() as client:
        expected.check(run, client)


def test_a_request_answered_without_outputs_is_repeated(
    run, expected, api, energy_server
):
    with Between(energy_server.address) as between:
        between.which = range(1000)
        run.options |= {"--triton": between.address, "--patience": "2s"}
        with run:
            output = " ".join(run.end(status=1).split())
        assert "no job succeeded for 2 s" in output
        assert "the answer lacks the output 'peak' (float32 [8, 5])" in output
        between.which = range(0, 1000, 3)
        with run:
            output = run.end()
    assert "0 retries" not in output
    with api.client() as client:
        expected.check(run, client)


@pytest.mark.slow
def test_another_server_takes_the_jobs_of_a_dead_one(
    run, expected, api, energy_repository, energy_server
):
    with TritonServer(energy_repository) as other:
        arguments = [*run.arguments(), "--triton", other.address]
        run.arguments = lambda: arguments
        with run:
            run.wait_until(lambda: run.done() >= 3)
            os.kill(other.pid, signal.SIGKILL)
            run.end()
    with api.client() as client:
        expected.check(run, client)


@pytest.mark.slow
def test_a_missing_server_ends_the_run_with_how_to_resume(
    run, expected, api, energy_repository, energy_server
):
    with TritonServer(energy_repository) as other:
        run.options |= {"--triton": other.address, "--patience": "2s"}
        with run:
            run.wait_until(lambda: run.done() >= 3)
            os.kill(other.pid, signal.SIGKILL)
            output = " ".join(run.end(status=1).split())
    assert "no job succeeded for 2 s" in output
    assert "the same command goes on from there" in output
    with api.client() as client:
        assert client.run(expected.run_id(run)).state == "failed"
        run.options["--triton"] = energy_server.address
        with run:
            assert "jobs are done already" in run.end()
        expected.check(run, client)


def test_a_killed_coordinator_resumes(run, expected, api):
    with run:
        run.wait_until(lambda: run.done() >= 3)
        run.process.kill()
        workers = run.children("spawn_main")
    psutil.wait_procs(workers, timeout=10)
    before = run.done()
    assert 3 <= before < JOBS
    with run:
        assert f"{before} jobs are done already" in run.end()
    with api.client() as client:
        expected.check(run, client)


def test_a_damaged_result_is_computed_again(run, expected, api, cluster):
    run.options["--scheduler"] = cluster.scheduler_address
    with run:
        run.end()
    (run.directory / "background.hdf5").unlink()
    damaged = run.directory / "jobs" / "000004.npz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with run:
        assert f"{JOBS - 1} jobs are done already" in run.end()
    with api.client() as client:
        expected.check(run, client)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_random_kills_change_nothing(run, expected, energy_repository, tmp_path):
    rng = random.Random(20)
    del run.options["--triton"]
    run.options["--repository"] = energy_repository
    (port,) = free_ports(1)
    token = Path(run.options["--token-file"]).read_text()
    service = ApiProcess(tmp_path / "api2.db", port, tmp_path / "api2.log", token)
    with contextlib.ExitStack() as stack:
        stack.enter_context(service)
        run.options["--api"] = service.url
        stack.enter_context(run)
        for _ in range(20):
            what = rng.choice(["worker", "triton", "api", "coordinator"])
            # The first jobs finish some seconds after the start.
            time.sleep(rng.uniform(0.5, 10))
            if what == "api":
                os.kill(service.pid, signal.SIGKILL)
                service.stop()
                service.__enter__()
            elif what == "coordinator":
                run.process.kill()
            else:
                word = {"worker": "spawn_main", "triton": "tritonserver"}[what]
                for child in run.children(word)[:1]:
                    child.kill()
            if run.process.poll() is not None:
                run.process.communicate()
                # Half of the results are deleted too, so that more jobs remain.
                for path in sorted((run.directory / "jobs").glob("0*.npz"))[::2]:
                    path.unlink()
                run.__enter__()
        run.process.communicate(timeout=240)
        with run:
            run.end()
        with service.client() as client:
            expected.check(run, client)


@pytest.fixture
def small_repository(energy_repository: Path, tmp_path: Path) -> Path:
    """Only the timeslides' models, a process for each, which start quickly."""
    small = tmp_path / "small"
    config = (energy_repository / "timeslides" / "config.pbtxt").read_text()
    for name in {"timeslides", *re.findall(r'model_name: "(\w+)"', config)}:
        shutil.copytree(energy_repository / name, small / name)
        path = small / name / "config.pbtxt"
        path.write_text(path.read_text().replace("count: 2", "count: 1"))
    return small


def crash(pid: int) -> None:
    """End a process with a segmentation fault, without a core dump."""
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    os.kill(pid, signal.SIGSEGV)


@pytest.mark.slow
def test_twenty_models_that_crash_under_load_change_nothing(
    run, api, small_repository, tmp_path
):
    """A model's process is killed twenty times, each time after a finished job."""
    run.strain = write_noise(tmp_path / "background.hdf5", 2 * LENGTH)
    run.options |= {"--stretch-length": "16s", "--slides": 2}
    undisturbed = replace(
        run, directory=tmp_path / "undisturbed", options={**run.options}
    )
    with undisturbed:
        undisturbed.end()
    del run.options["--triton"]
    run.options["--repository"] = small_repository
    rng = random.Random(21)
    killed = set()

    def stubs() -> list[tuple[int, int]]:
        """Processes of the models and their server; none if one is missing."""
        found = []
        for one in run.children("triton_python_backend_stub"):
            # The process may belong to a server that is ending.
            with contextlib.suppress(ProcessLookupError):
                found.append((one.pid, os.getpgid(one.pid)))
        return [(pid, server) for pid, server in found if server not in killed]

    with run:
        for _ in range(20):
            run.wait_until(stubs)
            done = run.done()
            run.wait_until(lambda done=done: run.done() > done)
            time.sleep(rng.uniform(0, 0.05))
            victim, server = rng.choice(stubs())
            killed.add(server)
            crash(victim)
        output = run.end()
    assert output.count("starting it again") == 20
    log = (run.directory / "triton.log").read_text()
    assert log.count("so the server was killed") == 20
    assert datasets(run.directory) == datasets(undisturbed.directory)
    with api.client() as client:
        found = blocks(client, run.directory)
        assert found == blocks(client, undisturbed.directory)
        assert [one["number"] for one in found] == list(range(200))


@pytest.mark.slow
def test_a_server_that_keeps_dying_ends_the_run(run, small_repository):
    """Its log has every start, and is kept."""
    del run.options["--triton"]
    run.options |= {"--repository": small_repository, "--patience": "6s"}
    log = run.directory / "triton.log"
    starts = 0
    with run:
        run.wait_until(lambda: run.done() >= 1)
        while run.process.poll() is None:
            if (
                found := log.read_text().count("Started GRPCInferenceService")
            ) > starts:
                starts = found
                for stub in run.children("triton_python_backend_stub"):
                    crash(stub.pid)
            time.sleep(0.01)
        message = " ".join(run.end(status=1).split())
    assert "no job succeeded for 6 s" in message
    assert "the same command goes on from there" in message
    assert re.search(rf"log,? .*{log}", message)
    assert 2 <= starts <= 4
    assert log.read_text().count("so the server was killed") >= starts - 1


def test_workers_of_a_running_scheduler_are_used(run, expected, api, cluster):
    run.options["--scheduler"] = cluster.scheduler_address
    with run:
        run.end()
    # The run does not end them.
    assert len(cluster.scheduler_info["workers"]) == 2
    with api.client() as client:
        expected.check(run, client)


def test_workers_read_gwosc_files(run, cluster, gwosc_files):
    run.options["--scheduler"] = cluster.scheduler_address
    command = run.command()
    at = command.index("--background")
    command[at : at + 2] = ["--strain", *map(str, gwosc_files)]
    command[command.index("--slides") + 1] = "2"
    subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(Path(run.options["--json"]).read_text())
    # Of 32 s, valid right edges are from 8 s (the warm-up) to 29.875 s, since the
    # second detector wraps around 2.047 s before the end; and to 27.875 s.
    assert result["livetime"] == 22 + 20
    assert not result["simulated"]


SBATCH = """#!{python}
import os, pathlib, subprocess, sys
jobs = pathlib.Path({folder!r})
with (jobs / "log").open("ab") as log:
    job = subprocess.Popen(
        ["sh", sys.argv[-1]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True, cwd=jobs,
    )
(jobs / "submitted").open("a").write(pathlib.Path(sys.argv[-1]).read_text())
print(f"Submitted batch job {{job.pid}}")
"""
SCANCEL = """#!{python}
import contextlib, os, signal, sys
for job in sys.argv[1:]:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(job), signal.SIGTERM)
"""


def test_workers_run_as_jobs_of_a_batch_system(run, expected, api, tmp_path):
    """With an imitation of Slurm: its two commands, which run the job script here.

    Slurm itself needs a daemon on every machine, and root to set it up. Our part is to
    start workers by job scripts, and to end them by cancellation; the two commands are
    enough for this.
    """
    commands, folder = tmp_path / "bin", tmp_path / "slurm"
    commands.mkdir()
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = commands / name
        path.write_text(text.format(python=sys.executable, folder=str(folder)))
        path.chmod(0o755)
    run.options["--cluster"] = "slurm"
    run.environment = {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "DASK_JOBQUEUE__SLURM__CORES": "1",
        "DASK_JOBQUEUE__SLURM__MEMORY": "2GB",
        "DASK_JOBQUEUE__SLURM__WALLTIME": "00:42:00",
    }
    with run:
        run.end()
    script = (folder / "submitted").read_text()
    assert script.count("#SBATCH -t 00:42:00") == 2
    with api.client() as client:
        expected.check(run, client)
    deadline = time.monotonic() + 30
    while any(
        str(run.directory) in " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def refusal(run: Running, **options: object) -> str:
    run.options |= {
        f"--{name.replace('_', '-')}": value for name, value in options.items()
    }
    return tests.command.refusal(*run.arguments(), statuses=(1, 2))


@pytest.mark.parametrize("system", ["slurm", "htcondor"])
def test_a_cluster_that_is_not_configured_is_refused(run, system):
    message = refusal(run, cluster=system)
    assert "expected the resources of its jobs in Dask's configuration" in message
    assert f"jobqueue.{system}" in message


def test_an_unreachable_scheduler_is_an_error(run, monkeypatch):
    monkeypatch.setattr("chirpwatch.streamer.background.cluster.CONNECT_TIMEOUT", 1)
    (port,) = free_ports(1)
    message = refusal(run, scheduler=f"tcp://127.0.0.1:{port}")
    assert f"no Dask scheduler at tcp://127.0.0.1:{port}" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slides": 10_000}, "expected at most 18 slides"),
        ({"slide_length": "2s"}, "expected at least kernel, filter"),
        ({"slide_length": "2.05s"}, "multiple of a feature frame"),
        ({"livetime": "1h"}, "either --livetime or --slides"),
        ({"stretch_length": "7 weeks"}, "expected a time such as 1yr, 30d"),
        ({"stretch_length": "0s"}, "expected a time above 0 s"),
        ({"stretch_length": "9s"}, "so that a slide has livetime"),
        ({"background": "nothing.hdf5"}, "no such file"),
        ({"triton": "127.0.0.1:1"}, "no Triton server at 127.0.0.1:1"),
        ({"scheduler": "a:1", "cluster": "slurm"}, "either --scheduler or --cluster"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(run, options, message):
    assert message in refusal(run, **options)
    assert not run.directory.exists()


def test_remote_workers_need_a_server_that_they_can_reach(run):
    del run.options["--triton"]
    assert "give --triton" in refusal(run, cluster="slurm")


def test_servers_of_two_models_are_refused(run, server, energy_server):
    arguments = [*run.arguments(), "--triton", server.address]
    run.arguments = lambda: arguments
    assert "results of two models do not mix" in refusal(run)
    assert not run.directory.exists()


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_another_runs_directory_is_refused_and_unchanged(
    run, server, energy_server, strain, cluster, tmp_path
):
    run.options["--scheduler"] = cluster.scheduler_address
    with run:
        run.end()
    del run.options["--scheduler"]
    before = snapshot(run.directory)
    assert "results of another model" in refusal(run, triton=server.address)
    run.options["--triton"] = energy_server.address
    assert "results of another livetime" in refusal(run, slides=SLIDES - 1)
    message = refusal(run, slides=SLIDES, slide_length="3s")
    assert "results of another step: expected 192, found 131" in message
    del run.options["--slide-length"]
    other = tmp_path / "background.hdf5"
    other.write_bytes(strain.read_bytes())
    with h5py.File(other, "a") as file:
        file[f"test/{START}-{LENGTH // 2}/L1"][:1000] *= 2
    assert "results of another strain" in refusal(run, background=other)
    assert snapshot(run.directory) == before


def test_two_runs_in_one_directory_are_refused(run, cluster):
    run.options["--scheduler"] = cluster.scheduler_address
    with run:
        run.wait_until(lambda: run.done() >= 1)
        assert "is in use by another background run" in refusal(run)
        run.end()


@pytest.mark.slow
def test_strain_that_changes_during_a_run_is_refused(run, strain, tmp_path):
    other = tmp_path / "background.hdf5"
    other.write_bytes(strain.read_bytes())
    run.options["--background"] = other
    run.options["--workers"] = 1
    with h5py.File(other, "a") as file:
        file[f"test/{START}-{LENGTH // 2}/L1"][700 * RATE] = np.nan
    with run:
        output = " ".join(run.end(status=1).split())
    assert "expected finite strain, found nan in L1" in output
    assert 0 < run.done() < JOBS
