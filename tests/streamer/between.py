"""A proxy between a Triton server and its clients that damages answers.

A server that loses the process of a model while a request is under way may answer
without an error, and without outputs.
"""

from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

Damage = Callable[[service_pb2.ModelInferResponse], None]


class Between(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Proxy that forwards requests and damages answers; a context manager.

    Attributes:
        address: Address of the proxy.
        damage: Function that changes an answer.
        which: Numbers of the answers to damage, counted from the first.
        answers: Number of answers so far.
    """

    def __init__(self, server: str) -> None:
        self.damage = no_outputs
        self.which: Container[int] = ()
        self.answers = 0
        self._channel = grpc.insecure_channel(
            server, [("grpc.max_receive_message_length", -1)]
        )
        self._server = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> "Between":
        self._listening = grpc.server(
            ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)]
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            self, self._listening
        )
        self.address = f"127.0.0.1:{self._listening.add_insecure_port('127.0.0.1:0')}"
        self._listening.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.stop(None).wait()
        self._channel.close()

    def ServerLive(self, request, context):  # noqa: N802 - gRPC's name
        return self._server.ServerLive(request)

    def ModelConfig(self, request, context):  # noqa: N802 - gRPC's name
        return self._server.ModelConfig(request)

    def ModelInfer(self, request, context):  # noqa: N802 - gRPC's name
        answer = self._server.ModelInfer(request)
        self._touch(answer)
        return answer

    def ModelStreamInfer(self, requests, context):  # noqa: N802 - gRPC's name
        for answer in self._server.ModelStreamInfer(requests):
            if not answer.error_message:
                self._touch(answer.infer_response)
            yield answer

    def _touch(self, answer: service_pb2.ModelInferResponse) -> None:
        if self.answers in self.which:
            self.damage(answer)
        self.answers += 1


def place(answer: service_pb2.ModelInferResponse) -> int:
    """Index of the first requested output in an answer."""
    names = [output.name for output in answer.outputs]
    return names.index("peak" if "peak" in names else "score")


def no_outputs(answer: service_pb2.ModelInferResponse) -> None:
    """Remove all outputs, as observed when a model's process died."""
    del answer.outputs[:], answer.raw_output_contents[:]


def one_less(answer: service_pb2.ModelInferResponse) -> None:
    at = place(answer)
    del answer.outputs[at], answer.raw_output_contents[at]


def no_bytes(answer: service_pb2.ModelInferResponse) -> None:
    del answer.raw_output_contents[:]


def half_the_bytes(answer: service_pb2.ModelInferResponse) -> None:
    at = place(answer)
    whole = answer.raw_output_contents[at]
    answer.raw_output_contents[at] = whole[: len(whole) // 2]


def another_shape(answer: service_pb2.ModelInferResponse) -> None:
    output = answer.outputs[place(answer)]
    output.shape[:] = output.shape[::-1]


def another_type(answer: service_pb2.ModelInferResponse) -> None:
    answer.outputs[place(answer)].datatype = "INT32"
