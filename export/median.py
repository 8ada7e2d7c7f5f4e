"""Medians of a window that slides over sorted groups of rows.

A PSD is the median of the periodograms of the last minute, and is made anew every few
seconds. Between two of them most periodograms stay. So each group of periodograms that
enters is sorted once; neighbouring groups are merged in pairs, pairs in fours, and a
window's median is read from its two sorted halves: a third of the comparisons that
sorting every window takes. All comparisons are elementwise minima and maxima of whole
rows, of many windows at a time.
"""

import numpy as np

from export.graph import Graph, Value

Rows = list[Value]
"""Edges that hold the rows of a sorted group in order: [groups, 1, bins] each."""


def unseen(size: int) -> np.ndarray:
    """Values of rows that stand for periodograms before the first: [size].

    Half of a group of them lies below everything and half above, the lower ones first,
    so that a group without any periodogram leaves the median as it is.
    """
    return np.repeat(np.array([-np.inf, np.inf], np.float32), size // 2)


def sliding_medians(
    graph: Graph, rows: Value, bins: int, group_size: int, groups: int
) -> Value:
    """Medians of the windows of ``groups`` groups, without each window's first row.

    Args:
        graph: Where nodes are added.
        rows: [(windows + groups - 1) * group_size, bins]: window ``w`` begins with
            group ``w``.
        bins: Values of a row.
        group_size: Rows of a group, even.
        groups: Groups of a window.

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

    # The window as two sorted lists.
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
    one, other = sorted(lists, key=len)
    one = _widened(graph, one, len(other))

    # Of one ascending and one descending list the smaller and the larger values: the
    # lower and the upper half of the window.
    pairs = list(zip(one, reversed(other), strict=True))
    below = graph.Max(*(graph.Min(*pair) for pair in pairs))
    above = graph.Min(*(graph.Max(*pair) for pair in pairs))
    last = [1 - groups] if groups > 1 else None
    first = graph.cut(members[0], [0], last, axis=0)
    # Without a row of the lower half, the median is the upper half's least value.
    median = graph.Where(graph.LessOrEqual(first, below), above, below)
    squeezed: Value = graph.Squeeze(median, [1])
    return squeezed


def _padded(graph: Graph, rows: Rows) -> Rows:
    """Rows up to the next power of two, as many below everything as above."""
    return _widened(graph, rows, 1 << (len(rows) - 1).bit_length())


def _widened(graph: Graph, rows: Rows, size: int) -> Rows:
    """A sorted list with infinities on either side, as many on one as on the other."""
    if size == len(rows):
        return rows
    low, high = graph.Min(rows[0], -np.inf), graph.Max(rows[0], np.inf)
    lacking = (size - len(rows)) // 2
    return [low] * lacking + rows + [high] * lacking


def _sorted(graph: Graph, rows: Rows) -> Rows:
    if len(rows) == 1:
        return rows
    half = len(rows) // 2
    return _merged(graph, _sorted(graph, rows[:half]), _sorted(graph, rows[half:]))


def _merged(graph: Graph, one: Rows, other: Rows) -> Rows:
    """Odd-even merge of two sorted lists of the same length, a power of two."""
    if len(one) == 1:
        return [graph.Min(*one, *other), graph.Max(*one, *other)]
    even = _merged(graph, one[::2], other[::2])
    odd = _merged(graph, one[1::2], other[1::2])
    between = [
        edge
        for low, high in zip(odd[:-1], even[1:], strict=True)
        for edge in (graph.Min(low, high), graph.Max(low, high))
    ]
    return [even[0], *between, odd[-1]]
