"""Sliding medians in an ONNX graph, by merging sorted groups of rows.

A PSD is the median of the last minute's periodograms, and is updated every few seconds,
so successive PSDs have most periodograms in common. Each new group of periodograms is
sorted once; neighbouring groups are merged in pairs, pairs in fours, and a window's
median is read from its two sorted halves. This takes a third of the comparisons needed
to sort every window. All comparisons are elementwise minima and maxima of rows, for
many windows at once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.export.graph import (
    Graph,
    Value,
)

Rows = list[Value]
"""Sorted groups: the edge at index i holds each group's i-th row, [groups, 1, bins]."""


def unseen(size: int) -> NDArray[Any]:
    """Placeholders for a group of periodograms from before the data begin: [size].

    The first half is minus infinity and the second half plus infinity, so that a group
    of placeholders leaves the median unchanged.
    """
    return np.repeat(np.array([-np.inf, np.inf], np.float32), size // 2)


def sliding_medians(
    graph: Graph, rows: Value, bins: int, group_size: int, groups: int
) -> Value:
    """Compute the median of each window of ``groups`` groups, without its first row.

    Args:
        graph: The graph to extend.
        rows: [(windows + groups - 1) * group_size, bins]: window ``w`` begins with
            group ``w``.
        bins: Values in a row.
        group_size: Rows in a group, even.
        groups: Groups in a window.

    Returns:
        [windows, bins].

    Source: K. E. Batcher, Sorting networks and their applications, AFIPS Spring Joint
    Computer Conference 32, 307 (1968), for the merging.
    """
    shaped = graph.Reshape(rows, [-1, group_size, bins])
    members: Rows = list(
        graph.Split(shaped, axis=1, num_outputs=group_size, outputs=group_size)
    )
    spans = {1: _sorted(graph, _padded(graph, members))}
    while 2 * max(spans) < groups:
        span = max(spans)
        half = spans[span]
        earlier = [graph.cut(row, [0], [-span], axis=0) for row in half]
        later = [graph.cut(row, [span], None, axis=0) for row in half]
        spans[2 * span] = _merged(graph, earlier, later)

    # Divide each window into sorted lists, then merge them until two are left.
    lists: list[Rows] = []
    begin = 0
    while begin < groups:
        span = max(span for span in spans if span <= groups - begin)
        stop = begin + span - groups
        lists.append(
            [
                graph.cut(row, [begin], [stop] if stop else None, axis=0)
                for row in spans[span]
            ]
        )
        begin += span
    if len(lists) == 1:
        (only,) = lists
        lists = [only[: len(only) // 2], only[len(only) // 2 :]]
    while len(lists) > 2:
        shorter, longer = sorted((lists.pop(), lists.pop()), key=len)
        lists.append(_merged(graph, _widened(graph, shorter, len(longer)), longer))
    shorter, longer = sorted(lists, key=len)
    shorter = _widened(graph, shorter, len(longer))

    # If the i-th smallest of one list is paired with the i-th largest of the other, the
    # smaller values of all pairs are the window's lower half.
    pairs = list(zip(shorter, reversed(longer), strict=True))
    below = graph.Max(*(graph.Min(*pair) for pair in pairs))
    above = graph.Min(*(graph.Max(*pair) for pair in pairs))
    last = [1 - groups] if groups > 1 else None
    first = graph.cut(members[0], [0], last, axis=0)
    # The window's first row does not count. If it is in the lower half, the median is
    # the upper half's minimum, and otherwise the lower half's maximum.
    median = graph.Where(graph.LessOrEqual(first, below), above, below)
    squeezed: Value = graph.Squeeze(median, [1])
    return squeezed


def _padded(graph: Graph, rows: Rows) -> Rows:
    """Pad sorted rows with infinities on both sides to the next power of two."""
    return _widened(graph, rows, 1 << (len(rows) - 1).bit_length())


def _widened(graph: Graph, rows: Rows, size: int) -> Rows:
    """Pad sorted rows with infinities, equally on both sides, to ``size`` rows."""
    if size == len(rows):
        return rows
    low, high = graph.Min(rows[0], -np.inf), graph.Max(rows[0], np.inf)
    lacking = (size - len(rows)) // 2
    return [low] * lacking + rows + [high] * lacking


def _sorted(graph: Graph, rows: Rows) -> Rows:
    """Sort rows elementwise; their number is a power of two."""
    if len(rows) == 1:
        return rows
    half = len(rows) // 2
    return _merged(graph, _sorted(graph, rows[:half]), _sorted(graph, rows[half:]))


def _merged(graph: Graph, left: Rows, right: Rows) -> Rows:
    """Odd-even merge of two sorted lists of the same length, a power of two."""
    if len(left) == 1:
        return [graph.Min(*left, *right), graph.Max(*left, *right)]
    even = _merged(graph, left[::2], right[::2])
    odd = _merged(graph, left[1::2], right[1::2])
    between = [
        edge
        for low, high in zip(odd[:-1], even[1:], strict=True)
        for edge in (graph.Min(low, high), graph.Max(low, high))
    ]
    return [even[0], *between, odd[-1]]
