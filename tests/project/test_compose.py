"""``docker-compose.yml`` parses, and its commands work outside a container too."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from google.protobuf import text_format
from prometheus_client import generate_latest
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.api.process import ApiProcess
from chirpwatch.errors import ServerError
from chirpwatch.export.repository import (
    ENGINES,
    ON_GPU,
)
from chirpwatch.process import free_ports
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.serve.entries import (
    CONFIGURATION,
    ENTRIES,
)
from chirpwatch.streamer.live.metrics import LiveMetrics
from tests import needs
from tests.builders import RUN, ZERO_LAG, block, chunk, slide
from tests.postgresql import PostgresServer

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
GPU = "model_repo/*/configs/{}.pbtxt"


def configuration(profiles: str, *files: str) -> dict:
    """Configuration that docker-compose reads from its files."""
    compose = needs.program("docker-compose", "docker-compose")
    done = subprocess.run(
        [compose, *(f"--file={file}" for file in files), "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"COMPOSE_PROFILES": profiles, "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture(scope="module")
def shipped_server() -> Iterator[TritonServer]:
    with TritonServer(ROOT / "model_repo") as server:
        yield server


@pytest.fixture
def services() -> dict:
    return configuration("native")["services"]


@pytest.mark.parametrize(
    "profiles", ["native", "embedded", "native,monitoring", "embedded,monitoring,live"]
)
def test_every_profile_parses(profiles: str) -> None:
    found = configuration(profiles)
    assert {"triton", "embedded", "database", "api", "replay"} <= set(found["services"])


def test_services_have_no_more_rights_than_they_need(services: dict) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"], name
        assert name == "secrets" or service["mem_limit"], name
        # Only the page and Grafana have published ports, on this machine only.
        ports = [str(port) for port in service.get("ports", [])]
        assert all("127.0.0.1" in port for port in ports), name
        variables = json.dumps(service.get("environment", {}))
        assert not re.search(r'PASSWORD"', variables), name


def test_triton_has_the_embedded_servers_options(services: dict) -> None:
    command = services["triton"]["command"]
    assert "--disable-auto-complete-config" in command
    assert f"--model-config-name={CONFIGURATION}" in command
    assert "--model-control-mode=explicit" in command
    loaded = {x for x in command if x.startswith("--load-model=")}
    assert loaded == {f"--load-model={name}" for name in (*ENTRIES, "stream")}
    for name in ("triton", "embedded"):
        (volume,) = services[name]["volumes"]
        assert str(volume).startswith(str(ROOT / "model_repo"))


def test_on_a_gpu_triton_uses_configurations_that_the_models_have() -> None:
    files = ("docker-compose.yml", "docker-compose.gpu.yml")
    found = configuration("native", *files)["services"]
    usual = configuration("native")["services"]
    triton = found.pop("triton")
    before = usual.pop("triton")
    for services in (found, usual):
        for service in services.values():
            service["volumes"] = sorted(map(str, service.get("volumes", [])))
    assert found == usual
    (option,) = set(triton["command"]) - set(before["command"])
    assert set(before["command"]) - set(triton["command"]) == {
        "--model-config-name=cpu"
    }
    name = option.removeprefix("--model-config-name=")
    assert {path.parent.parent.name for path in ROOT.glob(GPU.format(name))} == set(
        ON_GPU
    )
    (device,) = triton["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    # TensorRT's engines are kept where the models' configurations put them.
    assert any(f":{ENGINES}:rw" in str(volume) for volume in triton["volumes"])
    assert set(before["volumes"]) < set(triton["volumes"])


def test_the_gpu_configurations_fit_the_models(
    tmp_path: Path,
) -> None:
    """The real server parses them, and their warm-up fits the models."""
    for path in ROOT.glob(GPU.format("gpu")):
        found = text_format.Parse(path.read_text(), pb.ModelConfig())
        usual = text_format.Parse(
            (path.parent.parent / "config.pbtxt").read_text(), pb.ModelConfig()
        )
        assert (found.input, found.output) == (usual.input, usual.output)
        assert (
            not found.default_model_filename
            or (path.parent.parent / "1" / found.default_model_filename).exists()
        )
    repository = tmp_path / "models"
    shutil.copytree(ROOT / "model_repo", repository)
    for path in repository.glob("*/configs/gpu.pbtxt"):
        text = path.read_text()
        assert "KIND_GPU" in text
        # This machine has no GPU.
        found = text_format.Parse(
            text.replace("KIND_GPU", "KIND_CPU").replace("cpu:0;gpu:0", "cpu:0"),
            pb.ModelConfig(),
        )
        found.ClearField("optimization")
        # The longest requests would take minutes on a CPU.
        del found.model_warmup[2:]
        (path.parent.parent / "config.pbtxt").write_text(str(found))
    log = tmp_path / "triton.log"
    with TritonServer(repository, configuration=None, log=log):
        pass
    # The server refuses a warm-up that does not fit the model.
    alone = tmp_path / "alone"
    shutil.copytree(repository / "head", alone / "head")
    path = alone / "head" / "config.pbtxt"
    wrong = text_format.Parse(path.read_text(), pb.ModelConfig())
    wrong.model_warmup[0].inputs["features"].dims[-1] = 7
    path.write_text(str(wrong))
    with pytest.raises(ServerError):
        with TritonServer(alone, log=log):
            pass


@pytest.mark.slow
def test_api_and_replay_run_outside_a_container(
    services: dict,
    shipped_server: TritonServer,
    postgresql: PostgresServer,
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    password = tmp_path / "database_password"
    entrypoint = [
        part.replace("/secrets/database_password", str(password))
        for part in services["secrets"]["entrypoint"]
    ]
    for _ in range(2):
        before = password.read_text() if password.exists() else None
        subprocess.run([sys.executable, *entrypoint[1:]], check=True)
        assert before in {None, password.read_text()}
    outside = {
        "postgresql+psycopg://chirpwatch@database/chirpwatch": (
            postgresql.new_database()
        ),
        "/secrets/database_password": str(password),
        "=/data/": f"={tmp_path}/",
        "0.0.0.0": "127.0.0.1",
        "triton:8001": shipped_server.address,
        "api:8080": f"127.0.0.1:{port}",
        "--port=8080": f"--port={port}",
    }

    def command(service: str) -> list[str]:
        arguments = services[service]["command"]
        for inside, there in outside.items():
            arguments = [one.replace(inside, there) for one in arguments]
        return [sys.executable, "-m", "chirpwatch", *arguments]

    with subprocess.Popen(command("api"), stdout=subprocess.PIPE, text=True) as api:
        assert api.stdout is not None
        assert f"127.0.0.1:{port}" in api.stdout.readline()
        # The health checks that the replay waits for.
        assert "/readyz" in json.dumps(services["api"]["healthcheck"])
        httpx.get(f"http://127.0.0.1:{port}/readyz").raise_for_status()
        # Fewer timeslides: the demo's own test has all.
        done = subprocess.run(
            [*command("replay"), "--slides=8"],
            capture_output=True,
            text=True,
            check=False,
        )
        api.terminate()
    assert done.returncode == 0, done.stderr
    assert "Injections found" in done.stdout


def test_options_are_given_by_the_environment(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    environment = {
        "CHIRPWATCH_API_PORT": str(port),
        "CHIRPWATCH_API_DATABASE": str(tmp_path / "results.db"),
    }
    command = [sys.executable, "-m", "chirpwatch", "api"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as api:
        assert api.stdout is not None
        assert f"127.0.0.1:{port}" in api.stdout.readline()
        api.terminate()
    assert (tmp_path / "results.db").exists()


def test_dashboard_and_alerts_use_existing_metrics(tmp_path: Path) -> None:
    live = LiveMetrics(tmp_path)
    live.stages.labels("scored").observe(1)
    live.frames.labels("H1", "read").inc()
    live.seconds.labels("gap").inc()
    live.deliveries.labels("file", "told").inc()
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as api:
        with api.client() as client:
            client.put_run("run", RUN)
            client.put_stream("run", "zl", ZERO_LAG)
            client.put_chunk("run", "zl", 0, chunk(0))
            client.put_block("run", 0, block(slide(4.0, [(9, 0.5, 1.0)])))
        # These two have no samples for recorded data.
        known = httpx.get(f"{api.url}/metrics").text
    known += "chirpwatch_lag_seconds 0\nchirpwatch_drift_p_value 1\n"
    known += generate_latest(live.registry).decode()
    names = set(re.findall(r"^([a-z_]+)", known, re.MULTILINE))
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = [rule["expr"] for rule in rules] + [
        target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
    ]
    wanted = {
        name
        for expression in asked
        for name in re.findall(r"\b(?:chirpwatch|process)_[a-z_]+", expression)
    }
    assert len(wanted) > 8
    assert wanted <= names
    # The documentation explains each alert.
    guide = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    assert [rule["alert"] for rule in rules if rule["alert"] not in guide] == []
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    targets = {
        target.split(":")[0]
        for job in scraped["scrape_configs"]
        for part in job["static_configs"]
        for target in part["targets"]
    }
    assert targets <= set(configuration("native")["services"])


def test_triton_has_the_dashboards_metrics(
    shipped_server: TritonServer,
) -> None:
    dashboard = (MONITORING / "dashboard.json").read_text()
    wanted = set(re.findall(r"\bnv_[a-z_]+", dashboard))
    assert wanted
    deadline = time.monotonic() + 10
    found: set[str] = set()
    while not wanted <= found and time.monotonic() < deadline:
        text = httpx.get(shipped_server.metrics_url, trust_env=False).text
        found = set(re.findall(r"^# HELP ([a-z_]+)", text, re.MULTILINE))
        time.sleep(0.1)
    assert wanted <= found
