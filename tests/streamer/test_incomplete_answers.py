"""Answers without an error that lack an output, or have an extra output."""

from collections.abc import Iterator

import numpy as np
import pytest

from chirpwatch.errors import ServerError
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.live.sequence import LiveSequence
from chirpwatch.streamer.timeslides import Timeslides
from tests.streamer.between import (
    Between,
    Damage,
    another_shape,
    another_type,
    half_the_bytes,
    no_bytes,
    no_outputs,
    one_less,
)


@pytest.fixture
def between(energy_server: TritonServer) -> Iterator[Between]:
    with Between(energy_server.address) as between:
        yield between


DAMAGES = {
    no_outputs: r"the answer lacks the output 'peak' \(float32 \[2, 3\]\)",
    one_less: r"the answer lacks the output 'peak' \(float32 \[2, 3\]\)",
    no_bytes: r"expected the output 'peak' \(float32 \[2, 3\]\), found one that cannot",
    half_the_bytes: r"'peak' \(float32 \[2, 3\]\), found one that cannot be read",
    another_shape: r"\(float32 \[2, 3\]\), found 'peak' \(float32 \[3, 2\]\)",
    another_type: r"\(float32 \[2, 3\]\), found 'peak' \(int32 \[2, 3\]\)",
}
"""Each output's answer for two timeslides of 20 s."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_answer_for_timeslides_without_an_output_is_a_server_error(
    between: Between, noise: np.ndarray, damage: Damage
) -> None:
    timeslides = Timeslides(between.address)
    stretch, shifts = noise[0, :, : 20 * 2048], np.array([[200], [400]])
    assert timeslides.events(stretch, shifts).valid.shape == (2, 160)
    between.damage, between.which = damage, range(1, 3)
    request = rf"2 timeslides of 40960 samples, sent to {between.address}: "
    with pytest.raises(ServerError, match=request + ".*" + DAMAGES[damage]):
        timeslides.events(stretch, shifts)
    with pytest.raises(ServerError, match=request):
        timeslides.scores(stretch, shifts)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_sequence_restarts_after_an_answer_without_an_output(
    between: Between, noise: np.ndarray, damage: Damage
) -> None:
    """It restarts as when the server loses its state, and has the same scores."""
    detector = ScoreClient(between.address)

    def stream() -> np.ndarray:
        pieces = detector.stream(lambda a, b: noise[..., a:b], 400, 40)
        return np.concatenate([one.score[:, one.valid] for one in pieces], axis=1)

    whole = stream()
    assert between.answers == 10
    # With up to 3 more in flight, the second damaged answer comes after new scores.
    between.damage, between.which = damage, {12, 21}
    assert np.array_equal(stream(), whole)
    assert between.answers > 30
    between.which = range(between.answers, 1000)
    request = rf"strides 0 to 40, sent to {between.address}: "
    with pytest.raises(ServerError, match=rf"{request}.*output 'score' \(float32"):
        stream()


def test_a_live_sequence_restarts_after_an_answer_without_an_output(
    between: Between, noise: np.ndarray
) -> None:
    failures: list[ServerError] = []

    def scores() -> np.ndarray:
        detector = ScoreClient(between.address)
        with LiveSequence(detector, failures.append, lambda length: False) as sequence:
            seconds = [
                sequence.push(noise[0, :, second * 2048 : (second + 1) * 2048])
                for second in range(40)
            ]
        return np.concatenate([one.score[0, one.valid] for one in seconds])

    whole = scores()
    assert not failures
    between.which = range(between.answers, 1000, 9)
    assert np.array_equal(scores(), whole)
    assert len(failures) >= 3
    assert all("the answer lacks the output 'score'" in str(one) for one in failures)
