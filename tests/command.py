"""The console command, run within the test process.

A subprocess would take seconds for its imports.
"""

import contextlib
import io

import pytest

from chirpwatch.commands.cli import main


def refusal(*arguments: object, statuses: tuple[int, ...] = (1,)) -> str:
    """Error message, on a single line, with which the command refuses its arguments.

    The exit status must be 1, or 2 where click itself refuses them.
    """
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code in statuses, errors.getvalue()
    return " ".join(errors.getvalue().split())
