"""A program that streams strain to Triton as aframe's inference does.

It runs in a subprocess with ml4gw-hermes on PYTHONPATH, and imports no module of
chirpwatch. It sends two sequences in parallel. Each request has two rows: the
background, whose PSD whitens both rows, and the strain to score, which is the
background again, or the background with injections.

``python hermes_stream.py ADDRESS MODEL STRIDE_SIZE UPDATE_STRIDES STRAIN SCORES
[FAULT]``: STRAIN is a .npy file, float32 [2, ifos, samples], background and injections;
SCORES is written, float32 [2, strides, columns]. FAULT is ``no-start``, for sequences
without the START flag, or ``crash``, for an end in the middle of both.
"""

import os
import sys
import time

import numpy as np
from hermes.aeriel.client import InferenceClient

WINDOW = 8
"""Largest number of updates in flight; the client itself sets no limit."""


class Sequence:
    """Collects the scores: the client's callback.

    Args:
        first_id: The background's sequence id; the injections' is the next.
        updates: Requests of each sequence.
        update_strides: Scores in the answer to a request.
    """

    def __init__(self, first_id: int, updates: int, update_strides: int) -> None:
        self.ids = first_id, first_id + 1
        self.update_strides = update_strides
        self.scores: dict[int, list[np.ndarray | None]] = {
            sequence: [None] * updates for sequence in self.ids
        }
        self.answered = 0

    def __call__(self, y: np.ndarray, request_id: int, sequence_id: int) -> None:
        # As aframe reads it: a column with a score for each stride.
        assert y[:, 0].shape == (self.update_strides,)
        assert self.scores[sequence_id][request_id] is None
        self.scores[sequence_id][request_id] = y
        self.answered += 1


def stream(
    address: str,
    model: str,
    strain: np.ndarray,
    stride_size: int,
    update_strides: int,
    fault: str | None,
) -> np.ndarray:
    """Scores of background and injections, [2, strides, columns].

    Args:
        address: ``host:port`` of the server's gRPC service.
        model: The served model.
        strain: Background and injections, float32 [2, ifos, samples].
        stride_size: Samples between two scores.
        update_strides: Strides in one request.
        fault: Fault to provoke, if any.
    """
    strides = strain.shape[-1] // stride_size
    size = update_strides * stride_size
    updates = -(-strides // update_strides)
    strain = np.pad(strain, ((0, 0), (0, 0), (0, updates * size - strain.shape[-1])))
    sequence = Sequence(2**40, updates, update_strides)
    client = InferenceClient(address, model, callback=sequence)
    with client:
        for i in range(updates):
            update = strain[..., i * size : (i + 1) * size]
            for sequence_id, rows in zip(sequence.ids, ([0, 0], [0, 1]), strict=True):
                client.infer(
                    update[rows],
                    request_id=i,
                    sequence_id=sequence_id,
                    sequence_start=i == 0 and fault != "no-start",
                    sequence_end=i == updates - 1,
                )
            last = i == updates - 1
            while sequence.answered < 2 * (updates if last else i + 1 - WINDOW):
                client.get()  # raises the error that the server sent in place of scores
                time.sleep(1e-3)
            if fault == "crash" and i == updates // 2:
                os._exit(1)
    return np.stack([np.concatenate(sequence.scores[i]) for i in sequence.ids])[
        :, :strides
    ]


if __name__ == "__main__":
    address, model, stride_size, update_strides, source, target, *fault = sys.argv[1:]
    scores = stream(
        address,
        model,
        np.load(source),
        int(stride_size),
        int(update_strides),
        fault=fault[0] if fault else None,
    )
    np.save(target, scores)
