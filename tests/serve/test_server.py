"""The embedded server: refused repositories, logs, and its end."""

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from chirpwatch.errors import ServerError
from chirpwatch.serve import embedded
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.serve.reaper import model_processes


@pytest.fixture
def alone(repository: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Function that makes a repository of a single model, which starts sooner."""

    def copy(model: str) -> Path:
        shutil.copytree(repository / model, tmp_path / "alone" / model)
        return tmp_path / "alone"

    return copy


def edit(repository: Path, model: str) -> tuple[Path, pb.ModelConfig]:
    path = repository / model / "config.pbtxt"
    return path, text_format.Parse(path.read_text(), pb.ModelConfig())


def refusal(repository: Path) -> str:
    """Start the server of the ensembles; return its error message."""
    server = TritonServer(repository, configuration=None)
    with pytest.raises(ServerError) as caught, server:
        pass
    return str(caught.value)


def test_a_sequence_control_that_the_model_lacks_is_refused(
    alone: Callable[[str], Path],
) -> None:
    repository = alone("snapshotter")
    path, config = edit(repository, "snapshotter")
    control = config.sequence_batching.control_input.add(name="start")
    control.control.add(
        kind=pb.ModelSequenceBatching.Control.CONTROL_SEQUENCE_START,
        int32_false_true=[0, 1],
    )
    path.write_text(text_format.MessageToString(config))
    assert "no sequence control input start" in refusal(repository)


def test_a_tensor_of_another_type_name_or_shape_is_refused(
    alone: Callable[[str], Path],
) -> None:
    repository = alone("head")
    path, config = edit(repository, "head")
    original = config.SerializeToString()
    config.input[0].data_type = pb.TYPE_FP16
    path.write_text(text_format.MessageToString(config))
    assert "configured as TYPE_FP16" in refusal(repository)

    config.ParseFromString(original)
    config.output[0].name = "scores"
    path.write_text(text_format.MessageToString(config))
    assert "unexpected inference output 'scores'" in refusal(repository)

    config.ParseFromString(original)
    config.input[0].dims[1] = 3
    path.write_text(text_format.MessageToString(config))
    assert "does not fit the ONNX model's" in refusal(repository)


def test_a_state_without_an_initial_value_is_refused(
    alone: Callable[[str], Path],
) -> None:
    repository = alone("snapshotter")
    path, config = edit(repository, "snapshotter")
    (state,) = config.sequence_batching.state
    del state.initial_state[:]
    path.write_text(text_format.MessageToString(config))
    assert "expected an initial_state, found none" in refusal(repository)


def test_two_states_are_refused(alone: Callable[[str], Path]) -> None:
    repository = alone("snapshotter")
    path, config = edit(repository, "snapshotter")
    (state,) = config.sequence_batching.state
    second = config.sequence_batching.state.add()
    second.CopyFrom(state)
    second.input_name, second.output_name = "other", "new_other"
    path.write_text(text_format.MessageToString(config))
    assert "expected at most one state, found 2" in refusal(repository)


def test_a_broken_repository_is_refused_with_tritons_reason(
    alone: Callable[[str], Path],
) -> None:
    repository = alone("frontend")
    (repository / "frontend" / "1" / "model.onnx").write_bytes(b"no ONNX")
    assert "model.onnx" in refusal(repository)
    (repository / "frontend" / "config.pbtxt").write_text("no configuration")
    assert "config.pbtxt" in refusal(repository)


def test_an_earlier_servers_log_is_kept(
    alone: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = alone("head")
    log = tmp_path / "logs" / "triton.log"
    log.parent.mkdir()
    earlier = 'E0102 03:04:05.678900 1 server.cc:1] "what the earlier one died of"\n'
    log.write_text(earlier)
    (copy / "head" / "config.pbtxt").write_text("no configuration")
    with pytest.raises(ServerError) as caught, TritonServer(copy, log=log):
        pass
    assert f"its log, {log}, says" in str(caught.value)
    assert "config.pbtxt" in str(caught.value)
    assert "what the earlier one died of" not in str(caught.value)
    assert log.read_text().startswith(earlier)
    assert "config.pbtxt" in log.read_text()


def test_a_log_that_cannot_be_written_is_named(
    repository: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(ServerError, match=f"log, {tmp_path}: .*directory"),
        TritonServer(repository, log=tmp_path),
    ):
        pass


def test_a_missing_repository_is_refused(tmp_path: Path) -> None:
    assert "no such model repository" in refusal(tmp_path / "nothing")


def test_a_taken_port_is_named(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port} for gRPC is taken"),
            TritonServer(repository, grpc_port=port),
        ):
            pass


def test_other_platforms_get_an_error_with_instructions(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "found Linux aarch64; use docker compose" in refusal(repository)


def processes_of(group: int) -> list[str]:
    found = subprocess.run(
        ["pgrep", "--pgroup", str(group)], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


def regions_of(pid: int) -> set[Path]:
    """Shared memory regions that a server's process has mapped."""
    mapped = Path(f"/proc/{pid}/maps").read_text().split()
    found = {Path(word) for word in mapped if word.startswith("/dev/shm/triton_")}
    assert found and all(path.exists() for path in found)
    return found


def await_nothing_left(group: int, regions: set[Path]) -> None:
    deadline = time.monotonic() + 10
    while processes_of(group) or any(path.exists() for path in regions):
        assert time.monotonic() < deadline, (
            "expected no process and no shared memory to be left"
        )
        time.sleep(0.1)


def test_a_killed_server_is_named_and_leaves_nothing(repository: Path) -> None:
    with TritonServer(repository) as server:
        pid = server.pid
        assert len(processes_of(pid)) > 1
        regions = regions_of(pid)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="killed by signal 9"):
            while True:
                server.check()
                time.sleep(0.05)
    await_nothing_left(pid, regions)


def test_a_server_that_lost_a_model_is_stopped(alone: Callable[[str], Path]) -> None:
    """Otherwise it would continue, and fail every other request."""
    with TritonServer(alone("head")) as server:
        pid = server.pid
        regions = regions_of(pid)
        (model, *_) = [one for one in processes_of(pid) if int(one) != pid]
        os.kill(int(model), signal.SIGKILL)
        with pytest.raises(ServerError, match=r"the process of \w+_0_\d ended"):
            server.check(patience=10)
    await_nothing_left(pid, regions)


def test_a_model_killed_while_it_loads_ends_the_start(
    alone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton may wait forever for a process that ends before it reports ready."""
    monkeypatch.setattr(embedded, "LOSS_LENGTH", 1.0)
    server = TritonServer(alone("head"))
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 30
        while not killed and time.monotonic() < until:
            if server._process is not None:
                for model in model_processes(server.pid)[:1]:
                    os.kill(model.pid, signal.SIGKILL)
                    killed.append(server.pid)
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    # If Triton does not wait, it reports the failure at once.
    reasons = "the process of .* ended while .* started|Stub process .* is not healthy"
    with pytest.raises(ServerError, match=reasons), server:
        pass
    killer.join()
    await_nothing_left(killed[0], set())


def test_a_server_ends_with_the_process_that_started_it(
    alone: Callable[[str], Path],
) -> None:
    program = (
        "import sys, time\n"
        "from chirpwatch.serve.embedded import TritonServer\n"
        "with TritonServer(sys.argv[1]) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(alone("head"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        regions = regions_of(pid)
        parent.kill()
    await_nothing_left(pid, regions)
