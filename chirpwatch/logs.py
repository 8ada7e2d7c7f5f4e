"""Logging of long-running commands: one event a line, to stderr."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import click

ROOT = "chirpwatch"
"""Logger above all of the project's."""

SERVER = "uvicorn"
"""Logger of the HTTP server that the results API runs in."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class TextFormatter(logging.Formatter):
    """Formats ``2026-11-27T21:40:00Z INFO live: message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; further lines of a message are indented."""
        time = _time(record).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = f"{time} {record.levelname} {_name(record)}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text.replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """Formats a JSON object with time, level, logger, message and fields.

    The fields are those that are given to a logger's methods as ``extra``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        body: dict[str, Any] = {
            "time": _time(record).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname,
            "logger": _name(record),
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        fields = record.__dict__.keys() - _STANDARD
        body |= {name: record.__dict__[name] for name in fields}
        # A value that JSON does not have is written as text, rather than lost.
        return json.dumps(body, default=str)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the time, which tests and commands may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def set_up(log_format: str) -> None:
    """Send the project's log, from INFO on, and the HTTP server's to stderr.

    Args:
        log_format: ``text`` or ``json``.
    """
    handler = StderrHandler()
    handler.setFormatter(FORMATTERS[log_format]())
    for name in (ROOT, SERVER):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    logging.getLogger(ROOT).setLevel(logging.INFO)


LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(list(FORMATTERS)),
    default="text",
    show_default=True,
    expose_value=False,
    callback=lambda context, option, value: set_up(value),
    help="Format of the log, which goes to stderr: lines of text, or of JSON.",
)
"""The option of every long-running command; it sets the log up."""


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _name(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{ROOT}.")
