"""Test of the complete stack in containers, on a machine with a Docker engine.

It builds our image, starts the stack, waits until everything is healthy and the replay
is done, and requests the results from outside. It kills the results service and the
database, and checks that they restart with the same results. Then it removes everything
with its volumes. On failure, it shows the containers' logs.

It needs only Docker with compose, and Python. Images come from their registries, or,
where these cannot be reached, from `stand_ins.sh`::

    PYTHON_IMAGE=chirpwatch-test-python POSTGRES_IMAGE=chirpwatch-test-postgres \
        python tests/project/compose/up.py
"""

import argparse
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROJECT = "chirpwatch-test"
PATIENCE = 900.0
"""Longest wait until all are healthy, and until the replay is done, s."""


class Stack:
    """The services of a compose project."""

    def __init__(self, profiles: str, port: int, files: list[str]) -> None:
        plugin = subprocess.run(
            ["docker", "compose", "version"], check=False, capture_output=True
        )
        compose = ["docker", "compose"] if not plugin.returncode else ["docker-compose"]
        self._command = [*compose, f"--project-name={PROJECT}"]
        self._command += [f"--file={file}" for file in files]
        self._environment = os.environ | {
            "COMPOSE_PROFILES": profiles,
            "CHIRPWATCH_PORT": str(port),
            "CHIRPWATCH_IMAGE": PROJECT,
        }
        self._url = f"http://127.0.0.1:{port}"

    def compose(self, *arguments: str, check: bool = True) -> None:
        """Run docker compose and return its output."""
        command = [*self._command, *arguments]
        subprocess.run(command, cwd=ROOT, env=self._environment, check=check)

    def containers(self) -> dict[str, tuple[str, dict]]:
        """Container name and state of each service, including stopped ones."""
        label = f"label=com.docker.compose.project={PROJECT}"
        names = _docker("ps", "--all", "--quiet", "--filter", label).split()
        found = {}
        for name in names:
            (told,) = json.loads(_docker("inspect", name))
            service = told["Config"]["Labels"]["com.docker.compose.service"]
            found[service] = name, told["State"] | {"count": told["RestartCount"]}
        return found

    def ask(self, path: str) -> dict:
        """Send a GET request to the results service, from outside."""
        with urllib.request.urlopen(f"{self._url}{path}", timeout=30) as answer:
            return json.load(answer)

    def wait_until_healthy(self) -> None:
        """Wait until every container with a health check is healthy."""
        deadline = time.monotonic() + PATIENCE
        states: dict[str, str] = {}
        while time.monotonic() < deadline:
            states = {
                service: state["Health"]["Status"]
                for service, (_, state) in self.containers().items()
                if "Health" in state
            }
            if set(states.values()) == {"healthy"} and "api" in states:
                return
            time.sleep(1)
        raise SystemExit(f"not healthy: {states}")

    def wait_until_replayed(self) -> None:
        """Wait until the replay has succeeded, without a restart."""
        deadline = time.monotonic() + PATIENCE
        state: dict = {}
        while time.monotonic() < deadline:
            _, state = self.containers()["replay"]
            if state["count"] or (not state["Running"] and state["ExitCode"]):
                break
            if state["Status"] == "exited":
                return
            time.sleep(1)
        raise SystemExit(f"the replay did not end well: {state}")

    def results(self) -> dict:
        """Results of the replay's run."""
        (run,) = self.ask("/v1/runs")["runs"]
        found = self.ask(f"/v1/runs/{run['id']}")
        if found["state"] != "complete" or not found["background"]["livetime"]:
            raise SystemExit(f"the run is not complete: {found}")
        found["far"] = self.ask(f"/v1/runs/{run['id']}/far?statistic=5")
        return found

    def check_containers(self) -> None:
        """Check our containers: not root, code not writable, no torch."""
        for service, (name, _) in self.containers().items():
            if service not in {"api", "embedded"}:
                continue
            if _docker("exec", name, "id", "-u").strip() == "0":
                raise SystemExit(f"{service} runs as root")
            place = "/opt/chirpwatch/written"
            tried = ["docker", "exec", name, "touch", place]
            if not subprocess.run(tried, check=False, capture_output=True).returncode:
                raise SystemExit(f"{service} can write its own programs")
            look = "import importlib.util as u; assert u.find_spec('torch') is None"
            _docker("exec", name, "python", "-c", look)

    def kill(self, service: str) -> None:
        """Kill a service's processes, as if they had crashed."""
        _, state = self.containers()[service]
        os.kill(state["Pid"], 9)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            _, now = self.containers()[service]
            if now["count"] > state["count"] and now["Running"]:
                return
            time.sleep(0.5)
        raise SystemExit(f"{service} did not come back after it was killed")


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def main() -> None:
    """Run the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profiles", default="embedded")
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    if shutil.which("docker") is None:
        raise SystemExit("there is no Docker")
    files = ["docker-compose.yml"] + ["docker-compose.gpu.yml"] * options.gpu
    stack = Stack(options.profiles, options.port, files)
    python = os.environ.get("PYTHON_IMAGE")
    begin = time.monotonic()
    try:
        stack.compose("build", *([f"--build-arg=PYTHON={python}"] if python else []))
        built = time.monotonic()
        stack.compose("up", "--detach", "--no-build")
        stack.wait_until_healthy()
        up = time.monotonic()
        stack.check_containers()
        stack.wait_until_replayed()
        before = stack.results()
        replayed = time.monotonic()
        for service in ("api", "database"):
            stack.kill(service)
        stack.wait_until_healthy()
        if stack.results() != before:
            raise SystemExit("the results are others after a kill")
    except BaseException:
        stack.compose("logs", "--tail=100", check=False)
        raise
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", check=False)
    print(
        f"built in {built - begin:.0f} s, healthy {up - built:.0f} s later, replayed "
        f"in {replayed - up:.0f} s; killed, the services came back with the results"
    )


if __name__ == "__main__":
    main()
