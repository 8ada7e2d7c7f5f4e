"""Options that the commands share: strain, servers and results."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chirpwatch.atomic import replacing
from chirpwatch.errors import ApiError
from chirpwatch.shipped import SHIPPED

if TYPE_CHECKING:
    from chirpwatch.api.process import ApiProcess
    from chirpwatch.serve.embedded import TritonServer
    from chirpwatch.streamer.results_api import Connection
    from chirpwatch.streamer.source import Source

Option = Callable[[Any], Any]

DATA: list[Option] = [
    click.option(
        "--strain",
        "strain_files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE...",
        help="GWOSC strain files (HDF5), one for each detector; resampled as needed.",
    ),
    click.option(
        "--background",
        "background_file",
        type=click.Path(path_type=Path),
        help="Segments in chirpwatch's own layout ({split}/{t0}-{duration}/{ifo}), as "
        "'chirpwatch simulate background' writes them.",
    ),
    click.option(
        "--split",
        type=click.Choice(["train", "valid", "test"]),
        default="test",
        show_default=True,
        help="Which segments of the background file.",
    ),
]
"""Options that name the strain, for a ``StrainCommand``; see ``chosen``."""


class StrainCommand(click.Command):
    """A command whose ``--strain`` takes any number of files."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``--strain A B`` as ``--strain A --strain B``."""
        repeated, within, begins = [], False, False
        for word in args:
            if word.startswith("-"):
                within = word == "--strain" or word.startswith("--strain=")
                begins = word == "--strain"
            elif within and not begins:
                repeated.append("--strain")
            else:
                begins = False
            repeated.append(word)
        return super().parse_args(ctx, repeated)


TRITON: Option = click.option(
    "--triton",
    metavar="HOST:PORT",
    help="gRPC address of a running Triton server. Without it, a server is started.",
)

REPOSITORY: Option = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=SHIPPED,
    show_default="the shipped one",
    help="Model repository of a server that is started.",
)

API: list[Option] = [
    click.option(
        "--api",
        "api_url",
        metavar="URL",
        help="URL of a running results API. Without it, an API is started.",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        help="File with the API's token, if it requires a token.",
    ),
]
"""Options that name the results API."""

RESULTS: list[Option] = [
    *API,
    click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path),
        help="File for the results as JSON, for scripts.",
    ),
    click.option("--keep", is_flag=True, help="Leave the servers up until Ctrl-C."),
]
"""Options for the results."""


def directory_option(default: str, text: str) -> Option:
    """Make the option ``--directory``.

    Args:
        default: The default.
        text: The help text.
    """
    return click.option(
        "--directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(default),
        show_default=True,
        help=text,
    )


def far_option(default: float, shown: str, text: str) -> Option:
    """Make the option ``--far``, a false-alarm rate per Julian year.

    Args:
        default: The default, per Julian year.
        shown: The default in words.
        text: The help text, without the unit.
    """
    return click.option(
        "--far",
        type=click.FloatRange(0, min_open=True),
        default=default,
        show_default=shown,
        help=f"{text}, per year.",
    )


def with_options(*groups: Sequence[Option]) -> Option:
    """Decorate a command with options, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def chosen(
    strain_files: tuple[Path, ...], background_file: Path | None, split: str
) -> "Source":
    """The strain that the options ``DATA`` name.

    Raises:
        click.UsageError: Both or neither of ``--strain`` and ``--background`` is given.
    """
    if bool(strain_files) == (background_file is not None):
        raise click.UsageError("give either --strain or --background")

    from chirpwatch.streamer.source import Source

    # Absolute paths: a worker may have another working directory.
    if background_file is not None:
        return Source((background_file.resolve(),), split)
    return Source(tuple(path.resolve() for path in strain_files), None)


def connection(url: str | None, token_file: Path | None) -> "Connection | None":
    """Address and token of a running API; None without an address.

    Raises:
        ApiError: The token file cannot be read.
    """
    if url is None:
        return None
    from chirpwatch.streamer.results_api import Connection

    if token_file is None:
        return Connection(url, None)
    try:
        return Connection(url, token_file.read_text().strip())
    except OSError as error:
        raise ApiError(
            f"--token-file: expected a readable file, found: {error}"
        ) from None


def write_json(path: Path, result: Any) -> None:
    """Write the file of ``--json``, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")


def keep_up(server: "TritonServer | None", service: "ApiProcess | None") -> None:
    """Leave the servers up until Ctrl-C.

    Raises:
        ChirpwatchError: A server ended.
    """
    logging.getLogger("chirpwatch").info("the servers stay up until Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if server is not None:
                server.check()
            if service is not None:
                service.check()
            time.sleep(1)
