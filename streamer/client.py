"""The served detector, as the streamer sees it: one stateful sequence at a time."""

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
"""Strain of samples ``start`` to ``stop``: float32 [rows, ifos, stop - start].

The rows may be another number for each piece: a row that was not in the piece before
continues row 0.
"""


@dataclass(frozen=True)
class Scores:
    """What the server answered to one request.

    Attributes:
        first: Stride of the sequence that the first score belongs to.
        score: Logits, float32 [rows, strides], with the rows that the request had.
        delay: Time by which each score's right edge lags the estimated merger, s,
            float32 [rows, strides].
        valid: Whether each score rests on real data alone, bool [strides].
        latency: From having the strain to having its scores, s.
    """

    first: int
    score: NDArray[Any]
    delay: NDArray[Any]
    valid: NDArray[Any]
    latency: float


class ScoreClient:
    """The ``detector`` ensemble that a Triton server serves.

    Args:
        address: ``host:port`` of the server's gRPC service.
        window: Requests of a sequence that may be under way at once.
        deadline: Longest wait for the answer to one request, s.

    Attributes:
        geometry: The geometry that the server publishes.
        model: Digest of the served models.
        longest_delay: The longest of the scores' delays, s.

    Raises:
        ServerError: There is no server at that address.
        ModelError: It serves no detector, or one that does not say these.
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
        """Score one gap-free stretch as one sequence.

        Where the server loses the sequence, or does not answer in time, the state may
        or may not have advanced; so the sequence is begun anew, early enough that the
        scores are those of an undisturbed one, to the last bit. A second failure
        without a score in between is final.

        Args:
            read: Gives the strain.
            strides: Length of the stretch in strides.
            request_strides: Strides in one request.
            first: First stride whose score is wanted.
            offsets: For each detector the samples of its data before stride 0, none
                where it is None. They are asked for, at negative samples, as far as
                they matter for its PSD; what is given for another detector then is
                ignored.

        Yields:
            Scores in order, from stride ``first`` to the last one.

        Raises:
            ServerError: The server did not answer; says which stride.
            ModelError: The server came back with another model.
        """
        offsets = offsets or (0,) * len(self.geometry.ifos)
        wanted = first
        failed_at: int | None = None
        while wanted < strides:
            try:
                for scores in self._sequence(
                    read, strides, request_strides, wanted, offsets
                ):
                    yield scores
                    wanted = scores.first + len(scores.valid)
            except ServerError as error:
                if failed_at == wanted:
                    raise
                failed_at = wanted
                self.check_unchanged(error)

    def check_unchanged(self, failure: ServerError) -> None:
        """Refuse to go on with a server that came back with another model.

        Raises:
            ServerError: The failure, where the server is not back.
            ModelError: It serves another model.
        """
        try:
            model = ScoreClient(self.address).model
        except ServerError:
            raise failure from None
        if model != self.model:
            raise other_model(self.address, self.model, model)

    def burn_in(self, stride: int, offsets: Sequence[int]) -> int:
        """Where a sequence must begin for the score of ``stride`` to be exact.

        A detector's PSD looks back by its length, from the last point of its grid; and
        the grid is counted from where the detector's data begin. That is also earlier,
        by at least one PSD, than what the kernel and its filter see, so that every row
        has its own strain, and not row 0's, wherever a wanted score looks.
        """
        geometry = self.geometry
        begin = stride
        for offset in offsets:
            edge = offset + stride * geometry.stride_size
            # The kernel's oldest sample may still be whitened by the PSD before.
            grid = edge // geometry.psd_refresh_size - 1
            oldest = max(0, grid * geometry.psd_refresh_size - geometry.psd_size)
            begin = min(begin, (oldest - offset) // geometry.stride_size)
        return begin

    def _sequence(
        self,
        read: Read,
        strides: int,
        request_strides: int,
        wanted: int,
        offsets: Sequence[int],
    ) -> Iterator[Scores]:
        begin = self.burn_in(wanted, offsets)
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
                if scores.first + len(scores.valid) > wanted:
                    yield since(scores, wanted)


@dataclass(frozen=True)
class Sent:
    """A request that was sent.

    Attributes:
        first: Its first stride.
        stop: The one after its last stride.
        outputs: What it asks for.
        time: When it was sent, by ``time.perf_counter``, s.
    """

    first: int
    stop: int
    outputs: Sequence[Output]
    time: float


class OpenSequence:
    """A sequence of requests on a connection of its own; a context manager.

    Args:
        detector: The served detector.
        offsets: For each detector the samples of its data before stride 0.

    Attributes:
        under_way: The requests that are not answered yet, oldest first.
    """

    def __init__(self, score_client: ScoreClient, offsets: Sequence[int]) -> None:
        self._address, self._deadline = score_client.address, score_client.deadline
        self._stride_size = score_client.geometry.stride_size
        self._offsets = np.array(offsets, np.int64)
        self._id = secrets.randbits(62) + 1
        self._begun = False
        self._answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.under_way: deque[Sent] = deque()

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
        # Every answer is in, or will not come: without this the end could wait.
        self._client.stop_stream(cancel_requests=True)
        # The client leaves gRPC's thread waiting for a next request, for ever; compare
        # https://github.com/grpc/grpc/issues/21995.
        stream._request_queue.put(None)
        self._client.close()

    def send(
        self, strain: NDArray[Any], first: int, stop: int, end: bool = False
    ) -> None:
        """Send the strain of strides ``first`` to ``stop``.

        Args:
            strain: [rows, ifos, samples].
            first: The first stride.
            stop: The one after the last.
            end: Whether the sequence ends with it.

        Raises:
            ServerError: The connection has ended.
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
        self.under_way.append(Sent(first, stop, outputs, time.perf_counter()))
        try:
            self._client.async_stream_infer(
                MODEL,
                inputs,
                outputs=[grpc.InferRequestedOutput(one.name) for one in outputs],
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
        """The answer to the oldest request.

        Raises:
            ServerError: It is an error, lacks an output, or did not come in time.
        """
        sent = self.under_way[0]
        what = f"strides {sent.first} to {sent.stop}, sent to {self._address}"
        try:
            remaining = sent.time + self._deadline - time.perf_counter()
            result, error = self._answers.get(timeout=max(0, remaining))
        except queue.Empty:
            raise ServerError(
                f"{what}: no answer within {self._deadline:g} s"
            ) from None
        if error is not None:
            # An error on a stream does not say which request it is for; answers come
            # in order, so it is the oldest one's.
            raise ServerError(f"{what}: {error.message()}")
        if result.get_response().id != str(sent.first):
            raise ServerError(f"{what}: answered as {result.get_response().id!r}")
        score, delay, valid = take_outputs(result, sent.outputs, what)
        self.under_way.popleft()
        latency = time.perf_counter() - sent.time
        return Scores(sent.first, score, delay, valid, latency)


def since(scores: Scores, wanted: int) -> Scores:
    """Drop what lies before the first stride that is wanted."""
    skip = max(0, wanted - scores.first)
    return Scores(
        scores.first + skip,
        scores.score[:, skip:],
        scores.delay[:, skip:],
        scores.valid[skip:],
        scores.latency,
    )
