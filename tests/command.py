"""The console command, run in the process of the tests where that is enough.

A process of its own takes seconds to import what it needs.
"""

import contextlib
import io

import pytest

from chirpwatch.commands.cli import main


def refusal(*arguments: object, statuses: tuple[int, ...] = (1,)) -> str:
    """What the command says, on one line, when it refuses its arguments.

    Its exit status is 1, or 2 where click itself refuses them.
    """
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code in statuses, errors.getvalue()
    return " ".join(errors.getvalue().split())
