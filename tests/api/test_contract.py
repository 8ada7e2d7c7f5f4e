"""Requests to the results service, and the treatment of arbitrary text in them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chirpwatch.api.contract.requests import (
    RunUpdate,
    ended_by,
)
from chirpwatch.text import LINE_SIZE, one_line

TEXTS = st.text(st.characters(blacklist_categories=[]), max_size=2 * LINE_SIZE)


@given(TEXTS)
@example("\nexpected\tstrain, found\x00 none\r\n")
@example("\u2028\x7f")
def test_a_run_can_end_with_any_errors_message(text: str) -> None:
    update = ended_by(ValueError(text))
    assert update.state == "failed" and update.message
    assert RunUpdate.model_validate(update.model_dump()) == update
    # No readable character is lost, except beyond the maximal length.
    words = text.split()
    if text.isprintable() and words and len(text) <= LINE_SIZE:
        assert update.message.split() == words


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("one\ttwo\nthree"), "one two three"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "MemoryError"),
        (ValueError("\n\n"), "ValueError"),
    ],
)
def test_an_error_without_a_message_is_named(error, message) -> None:
    assert ended_by(error).message == message


def test_a_long_line_is_truncated() -> None:
    assert one_line("a " * LINE_SIZE, 5) == "a a a"
