"""Hostile input: no crash, no hang, and no leaked path or secret."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from chirpwatch.api.process import ApiProcess
from chirpwatch.export.repository import MODELS
from chirpwatch.streamer.client import (
    OpenSequence,
    ScoreClient,
)
from tests.builders import RUN, ZERO_LAG

SECONDS = 15
"""Time for fuzzing each reader, s."""

PATH = re.compile(r"(?<![\w:])/(tmp|root|home|usr|opt|work|dev)/|site-packages|\.py\b")


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["background", "gwosc", "signals"])
def test_readers_take_any_file(reader: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.project.fuzz_readers", reader),
            *(f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/"),
            "-seed=1",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.findall(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    print(f"{reader}: {runs[0]} files in {SECONDS} s")
    assert int(runs[0]) > 200


def tensors() -> st.SearchStrategy[np.ndarray]:
    """Small tensors of any type, shape and values."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
    types = st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.bool_])
    return types.flatmap(lambda kind: hnp.arrays(kind, shapes))


def strain() -> st.SearchStrategy[np.ndarray]:
    """Tensors with strain's shape, and values that strain cannot have."""
    shapes = st.tuples(
        st.integers(0, 3), st.integers(0, 3), st.sampled_from([0, 1, 255, 256, 2048])
    )
    fill = st.sampled_from([0.0, np.nan, np.inf, -np.inf, 3e38, 1e-45, 1e-21])
    return st.builds(
        lambda shape, value: np.full(shape, value, np.float32), shapes, fill
    )


REQUESTS = st.fixed_dictionaries(
    {
        "model": st.sampled_from([*MODELS, "detector", "timeslides", "none"]),
        "inputs": st.dictionaries(
            st.sampled_from(
                [
                    "strain",
                    "position",
                    "shifts",
                    "snapshot",
                    "filters",
                    "features",
                    "usable",
                    "whole",
                    "state",
                    "other",
                ]
            ),
            st.one_of(tensors(), strain()),
            min_size=1,
            max_size=4,
        ),
        "sequence": st.sampled_from([0, 1, 7, 2**63 - 1]),
        "start": st.booleans(),
        "end": st.booleans(),
    }
)


@pytest.mark.parametrize("served", ["server", "wired_server"])
def test_triton_answers_any_request(
    request: pytest.FixtureRequest, served: str
) -> None:
    """Triton answers or returns an error, and scores are right afterwards."""
    server = request.getfixturevalue(served)
    client = grpc.InferenceServerClient(server.address)
    before = {one.pid for one in psutil.Process(server.pid).children()}
    leaks = []

    @settings(
        max_examples=200,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(REQUESTS)
    def ask(request: dict) -> None:
        inputs = []
        for name, value in request["inputs"].items():
            kind = np_to_triton_dtype(value.dtype)
            inputs.append(grpc.InferInput(name, list(value.shape), kind))
            inputs[-1].set_data_from_numpy(value)
        try:
            client.infer(
                request["model"],
                inputs,
                sequence_id=request["sequence"],
                sequence_start=request["start"],
                sequence_end=request["end"],
                client_timeout=20,
            )
        except InferenceServerException as error:
            assert error.status() != "StatusCode.DEADLINE_EXCEEDED", request
            if PATH.search(str(error)):
                leaks.append(str(error))

    ask()
    assert leaks == []
    assert {one.pid for one in psutil.Process(server.pid).children()} == before
    detector = ScoreClient(server.address)
    data = np.random.default_rng(1).normal(0, 1e-21, (1, 2, 12 * 2048))
    with OpenSequence(detector, (0, 0)) as sequence:
        sequence.send(data, 0, 96, end=True)
        scores = sequence.receive()
    assert np.isfinite(scores.score[:, scores.valid]).all()
    assert np.count_nonzero(scores.valid) == 33


BODIES = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=20),
            st.sampled_from([2**63, -(2**63), 10**400, "../../etc/passwd", "\x00"]),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.sampled_from(sorted(type(RUN).model_fields)), inner),
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
PLACES = st.sampled_from(
    [
        "/v1/runs/{}",
        "/v1/runs/run/streams/{}",
        "/v1/runs/run/streams/zl/chunks/{}",
        "/v1/runs/run/background/{}",
        "/v1/runs/run/injections/{}",
        "/v1/runs/run/strain/{}",
        "/v1/runs/run/vetoes/{}",
        "/{}",
    ]
)
WORDS = st.one_of(
    st.sampled_from(
        ["0", "-1", "x", "..%2f..%2fetc%2fpasswd", "%00", "1e9", "9" * 40, "a" * 5000]
    ),
    st.text("abc0./%~'\"<>;", max_size=12),
)
METHODS = st.sampled_from(["GET", "PUT", "PATCH", "DELETE", "POST"])


def test_the_api_answers_anything(tmp_path: Path) -> None:
    """The API never fails internally, and its answers reveal no internals."""
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as api:
        with api.client() as client:
            client.put_run("run", RUN)
            client.put_stream("run", "zl", ZERO_LAG)
        http = httpx.Client(
            base_url=api.url,
            trust_env=False,
            timeout=20,
            headers={"Authorization": f"Bearer {api.token}"},
        )

        @settings(max_examples=500, deadline=None)
        @given(METHODS, PLACES, WORDS, BODIES, st.booleans())
        def ask(method: str, place: str, word: str, body: bytes, kind: bool) -> None:
            headers = {"Content-Type": "application/json"} if kind else {}
            try:
                url = httpx.URL(place.format(word))
            except httpx.InvalidURL:
                return
            answer = http.request(method, url, content=body, headers=headers)
            assert answer.status_code < 500, answer.text
            if answer.status_code >= 400:
                assert api.token not in answer.text
                assert str(tmp_path) not in answer.text
                assert "Traceback" not in answer.text
                assert "site-packages" not in answer.text

        ask()
        assert http.get("/healthz").status_code == 200
    log = (tmp_path / "api.log").read_text()
    assert "Traceback" not in log
    assert api.token not in log
    assert os.environ.get("HOME", "/nowhere") not in log
