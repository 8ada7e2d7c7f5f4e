"""Splitting scores into chunks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chirpwatch.clustering import cluster_strides, find_events
from chirpwatch.geometry import Geometry
from chirpwatch.score_times import merger_ns
from chirpwatch.streamer.chunks import Chunker

GEOMETRY = Geometry(inference_sampling_rate=1.0, frame_size=32)
T0_NS = 1_262_304_000 * 10**9


@given(st.data())
def test_every_stride_and_event_is_in_exactly_one_chunk(data):
    """Whatever an earlier process sent, and whatever the pieces' sizes."""
    count = data.draw(st.integers(1, 100), label="strides")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    rng = np.random.default_rng(seed)
    score = rng.integers(9, size=count).astype(np.float32)
    valid = rng.random(count) < 0.8
    score[~valid] = np.nan
    delay = rng.random(count).astype(np.float32)
    sent = data.draw(st.integers(0, count), label="sent before")
    stride_ns = GEOMETRY.stride_ns
    chunker = Chunker(GEOMETRY, T0_NS, T0_NS + sent * stride_ns)
    assert chunker.taken == sent
    chunks, position = [], 0
    while position < count:
        size = data.draw(st.integers(1, 40), label="size")
        part = slice(position, position + size)
        chunker.push(score[part], delay[part], valid[part])
        position += size
        if chunker.decided > chunker.taken:
            stop = data.draw(st.integers(chunker.taken + 1, chunker.decided))
            chunks.append(chunker.take(stop))
    chunker.finish()
    assert chunker.pushed == chunker.decided == count
    if chunker.taken < count:
        chunks.append(chunker.take(count, last=True))
    assert [flag for one in chunks for flag in one.valid] == valid[sent:].tolist()
    expected = np.where(valid, score, 0)[sent:]
    assert [value for one in chunks for value in one.scores] == expected.tolist()
    stride = sent
    for chunk in chunks:
        assert chunk.start_ns == T0_NS + (stride + 1) * stride_ns
        stride += len(chunk.valid)
        edges_ns = chunk.start_ns, chunk.stop_ns
        for event in chunk.events:
            assert edges_ns[0] - 10**9 <= event.time_ns <= edges_ns[1]
    found = find_events(score, cluster_strides(GEOMETRY), valid)
    (strides,) = np.nonzero(found & (np.arange(count) >= sent))
    times = merger_ns(T0_NS, stride_ns, strides, delay[strides])
    assert [
        (event.time_ns, event.statistic) for one in chunks for event in one.events
    ] == list(zip(times.tolist(), score[strides].tolist(), strict=True))
