"""Client of the served model ``detector``: scores strain in stateful sequences."""

import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from chirpwatch.errors import ServerError
from chirpwatch.streamer.served import (
    KEEPALIVE,
    Output,
    describe,
    other_model,
    take_outputs,
)

MODEL = "detector"

Read = Callable[[int, int], NDArray[Any]]
"""Returns the strain of samples ``start`` to ``stop``, float32 [rows, ifos, size].

The number of rows may differ between calls: a row that the previous call did not have
continues row 0.
"""


@dataclass(frozen=True)
class Scores:
    """The scores of a request.

    Attributes:
        first: Stride of the first score in the sequence.
        score: Logits, float32 [rows, strides], with the request's rows.
        delay: Time by which each score's right edge lags the estimated merger, s,
            float32 [rows, strides].
        valid: Whether each score depends on real data alone, bool [strides].
        latency: Time from sending the strain to receiving its scores, s.
    """

    first: int
    score: NDArray[Any]
    delay: NDArray[Any]
    valid: NDArray[Any]
    latency: float


class ScoreClient:
    """Client of the ``detector`` ensemble on a Triton server.

    Args:
        address: ``host:port`` of the server's gRPC service.
        window: Most unanswered requests of a sequence at a time.
        deadline: Longest wait for the response to a request, s.

    Attributes:
        geometry: The geometry that the server publishes.
        model: Digest of the served models.
        longest_delay: Largest delay of any score, s.

    Raises:
        ServerError: No server answers at the address.
        ModelError: It does not serve ``detector``, or publishes no geometry or no
            longest delay.
    """

    def __init__(self, address: str, window: int = 4, deadline: float = 60) -> None:
        self.address = address
        self.window = window
        self.deadline = deadline
        served = describe(address, MODEL)
        self.geometry, self.model = served.geometry, served.model
        self.longest_delay = served.longest_delay

    def stream(
        self,
        read: Read,
        strides: int,
        request_strides: int,
        first: int = 0,
        offsets: Sequence[int] | None = None,
    ) -> Iterator[Scores]:
        """Score a gap-free stretch as a single sequence.

        If a request fails or times out, the server's state is unknown. Then a new
        sequence starts, so early that its scores are bitwise equal to those of an
        undisturbed sequence. A second failure at the same stride is final.

        Args:
            read: Returns the strain.
            strides: Length of the stretch in strides.
            request_strides: Strides in a request.
            first: First stride to score.
            offsets: Number of each detector's samples before stride 0; None for 0.
                They are read, at negative samples, as far as they matter for the
                detector's PSD. Samples before a detector's data are ignored.

        Yields:
            Scores in order, from stride ``first`` to the last one.

        Raises:
            ServerError: A request failed twice, or the server is unreachable.
            ModelError: After a failure, the server serves another model.
        """
        offsets = offsets or (0,) * len(self.geometry.ifos)
        next_stride = first
        failed_at: int | None = None
        while next_stride < strides:
            try:
                for scores in self._sequence(
                    read, strides, request_strides, next_stride, offsets
                ):
                    yield scores
                    next_stride = scores.first + len(scores.valid)
            except ServerError as error:
                if failed_at == next_stride:
                    raise
                failed_at = next_stride
                self.check_unchanged(error)

    def check_unchanged(self, failure: ServerError) -> None:
        """After a failure, check that the server still serves the same model.

        Args:
            failure: The failure.

        Raises:
            ServerError: The failure, if the server is unreachable.
            ModelError: The server now serves another model.
        """
        try:
            model = ScoreClient(self.address).model
        except ServerError:
            raise failure from None
        if model != self.model:
            raise other_model(self.address, self.model, model)

    def burn_in(self, stride: int, offsets: Sequence[int]) -> int:
        """First stride of a sequence in which the score of ``stride`` is exact.

        A PSD covers the ``psd_size`` samples before the last point of its refresh grid,
        which starts at the detector's first sample. The sequence also starts at least a
        PSD before the strain that ``stride`` sees, so that each row is whitened and
        scored with its own strain, not with row 0's.

        Args:
            stride: The stride.
            offsets: See ``stream``.

        Returns:
            The stride; negative if it lies before stride 0.
        """
        geometry = self.geometry
        begin = stride
        for offset in offsets:
            edge = offset + stride * geometry.stride_size
            # The kernel's oldest sample may be whitened with the previous PSD.
            grid = edge // geometry.psd_refresh_size - 1
            oldest = max(0, grid * geometry.psd_refresh_size - geometry.psd_size)
            begin = min(begin, (oldest - offset) // geometry.stride_size)
        return begin

    def _sequence(
        self,
        read: Read,
        strides: int,
        request_strides: int,
        first: int,
        offsets: Sequence[int],
    ) -> Iterator[Scores]:
        begin = self.burn_in(first, offsets)
        with OpenSequence(self, offsets) as sequence:
            position = begin
            while position < strides or sequence.under_way:
                while position < strides and len(sequence.under_way) < self.window:
                    stop = min(position + request_strides, strides)
                    size = self.geometry.stride_size
                    strain = read(position * size, stop * size)
                    sequence.send(strain, position, stop, end=stop == strides)
                    position = stop
                scores = sequence.receive()
                if scores.first + len(scores.valid) > first:
                    yield since(scores, first)


@dataclass(frozen=True)
class SentRequest:
    """A request without a response yet.

    Attributes:
        first: Its first stride.
        stop: The stride after its last.
        outputs: The expected outputs.
        time: When it was sent, by ``time.perf_counter``, s.
    """

    first: int
    stop: int
    outputs: Sequence[Output]
    time: float


class OpenSequence:
    """A sequence of requests over its own gRPC stream; a context manager.

    Args:
        score_client: Client of the served model.
        offsets: Number of each detector's samples before stride 0.

    Attributes:
        under_way: The unanswered requests, oldest first.
    """

    def __init__(self, score_client: ScoreClient, offsets: Sequence[int]) -> None:
        self._address, self._deadline = score_client.address, score_client.deadline
        self._stride_size = score_client.geometry.stride_size
        self._offsets = np.array(offsets, np.int64)
        self._id = secrets.randbits(62) + 1
        self._begun = False
        self._answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.under_way: deque[SentRequest] = deque()

    def __enter__(self) -> Self:
        self._client = grpc.InferenceServerClient(
            self._address, keepalive_options=KEEPALIVE
        )
        self._client.start_stream(
            lambda result, error: self._answers.put((result, error))
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stream = self._client._stream
        # No response is awaited any more: cancel, as waiting for the stream could hang.
        self._client.stop_stream(cancel_requests=True)
        # tritonclient leaves gRPC's thread waiting for a next request for ever; see
        # https://github.com/grpc/grpc/issues/21995.
        stream._request_queue.put(None)
        self._client.close()

    def send(
        self, strain: NDArray[Any], first: int, stop: int, end: bool = False
    ) -> None:
        """Send the strain of strides ``first`` to ``stop``.

        Args:
            strain: Strain, [rows, ifos, samples].
            first: The first stride.
            stop: The stride after the last.
            end: Whether this is the sequence's last request.

        Raises:
            ServerError: The server has ended the stream.
        """
        strain = np.ascontiguousarray(strain, dtype=np.float32)
        position = self._offsets + first * self._stride_size
        inputs = [
            grpc.InferInput("strain", list(strain.shape), "FP32"),
            grpc.InferInput("position", list(position.shape), "INT64"),
        ]
        inputs[0].set_data_from_numpy(strain)
        inputs[1].set_data_from_numpy(position)
        rows, strides = len(strain), stop - first
        outputs = [
            Output("score", np.float32, (rows, strides)),
            Output("delay", np.float32, (rows, strides)),
            Output("valid", np.bool_, (strides,)),
        ]
        self.under_way.append(SentRequest(first, stop, outputs, time.perf_counter()))
        try:
            self._client.async_stream_infer(
                MODEL,
                inputs,
                outputs=[grpc.InferRequestedOutput(output.name) for output in outputs],
                request_id=str(first),
                sequence_id=self._id,
                sequence_start=not self._begun,
                sequence_end=end,
            )
        except InferenceServerException as error:
            raise ServerError(
                f"the server at {self._address} ended the stream before stride "
                f"{first} was sent: {error.message()}"
            ) from None
        self._begun = True

    def receive(self) -> Scores:
        """Wait for the response to the oldest request.

        Raises:
            ServerError: The response is an error, lacks an output, or is late.
        """
        sent = self.under_way[0]
        request = f"strides {sent.first} to {sent.stop}, sent to {self._address}"
        try:
            remaining = sent.time + self._deadline - time.perf_counter()
            result, error = self._answers.get(timeout=max(0, remaining))
        except queue.Empty:
            raise ServerError(
                f"{request}: no answer within {self._deadline:g} s"
            ) from None
        if error is not None:
            # A stream's error does not name its request. Responses come in order, so it
            # belongs to the oldest request.
            raise ServerError(f"{request}: {error.message()}")
        if result.get_response().id != str(sent.first):
            raise ServerError(
                f"{request}: expected the response to request {sent.first}, found that "
                f"to {result.get_response().id!r}"
            )
        score, delay, valid = take_outputs(result, sent.outputs, request)
        self.under_way.popleft()
        latency = time.perf_counter() - sent.time
        return Scores(sent.first, score, delay, valid, latency)


def since(scores: Scores, first: int) -> Scores:
    """Drop the scores before stride ``first``."""
    skip = max(0, first - scores.first)
    return Scores(
        scores.first + skip,
        scores.score[:, skip:],
        scores.delay[:, skip:],
        scores.valid[skip:],
        scores.latency,
    )
