"""``docker-compose.yml`` parses, and its commands work outside a container too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chirpwatch.process import free_ports
from serve.embedded import TritonServer

ROOT = Path(__file__).parent.parent


@pytest.fixture
def services() -> dict:
    """The services as docker-compose understands them."""
    compose = shutil.which("docker-compose")
    if compose is None:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        [compose, "config"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def test_triton_is_told_what_the_embedded_server_is(services: dict) -> None:
    command = services["triton"]["command"]
    assert "--disable-auto-complete-config" in command
    (volume,) = services["triton"]["volumes"]
    assert str(volume).startswith(str(ROOT / "model_repo"))


def test_api_and_replay_run_outside_a_container(services: dict, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with TritonServer(ROOT / "model_repo") as server:
        outside = {
            "/data": str(tmp_path),
            "0.0.0.0": "127.0.0.1",
            "triton:8001": server.address,
            "api:8080": f"127.0.0.1:{port}",
            "--port=8080": f"--port={port}",
        }

        def command(service: str) -> list[str]:
            arguments = services[service]["command"]
            for inside, there in outside.items():
                arguments = [one.replace(inside, there) for one in arguments]
            return [sys.executable, "-m", "chirpwatch.cli", *arguments]

        with subprocess.Popen(command("api"), stdout=subprocess.PIPE, text=True) as api:
            assert api.stdout is not None
            assert f"127.0.0.1:{port}" in api.stdout.readline()
            done = subprocess.run(
                command("replay"), capture_output=True, text=True, check=False
            )
            api.terminate()
    assert done.returncode == 0, done.stderr
    assert "Injections found" in done.stdout
