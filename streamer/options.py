"""Options that the commands share: which strain, which servers, what to leave."""

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
        help="Strain files as GWOSC publishes them (HDF5), one for each detector; "
        "resampled as needed.",
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
"""Which strain; see ``chosen``. For a ``StrainCommand``."""


class StrainCommand(click.Command):
    """A command whose ``--strain`` takes the files that follow it, however many."""

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
    help="gRPC address of a running Triton server. Without it, one is started.",
)

REPOSITORY: Option = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=SHIPPED,
    show_default="the shipped one",
    help="Model repository for the server that is started.",
)

API: list[Option] = [
    click.option(
        "--api",
        "api_url",
        metavar="URL",
        help="Address of a running results API. Without it, one is started.",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        help="File with the API's token, where it wants one.",
    ),
]
"""Which results API."""

RESULTS: list[Option] = [
    *API,
    click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path),
        help="File for the same result as JSON, for scripts.",
    ),
    click.option("--keep", is_flag=True, help="Leave the servers up until Ctrl-C."),
]
"""Where results go."""


def directory_option(default: str, what: str) -> Option:
    """The directory of a command.

    Args:
        default: The default.
        what: What is kept there, for the help.
    """
    return click.option(
        "--directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(default),
        show_default=True,
        help=what,
    )


def far_option(default: float, shown: str, what: str) -> Option:
    """A false-alarm rate, per Julian year.

    Args:
        default: The default.
        shown: The default in words.
        what: What it decides, for the help.
    """
    return click.option(
        "--far",
        type=click.FloatRange(0, min_open=True),
        default=default,
        show_default=shown,
        help=f"{what}, per year.",
    )


def with_options(*groups: Sequence[Option]) -> Option:
    """Give a command options, in this order."""

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
        click.UsageError: They name none, or two.
    """
    if bool(strain_files) == (background_file is not None):
        raise click.UsageError("give either --strain or --background")

    from chirpwatch.streamer.source import Source

    # A worker may have another working directory.
    if background_file is not None:
        return Source((background_file.resolve(),), split)
    return Source(tuple(path.resolve() for path in strain_files), None)


def connection(url: str | None, token_file: Path | None) -> "Connection | None":
    """Where a running API is, or None where no address is given.

    Raises:
        ApiError: The token's file cannot be read.
    """
    if url is None:
        return None
    from chirpwatch.streamer.results_api import Connection

    if token_file is None:
        return Connection(url, None)
    try:
        return Connection(url, token_file.read_text().strip())
    except OSError as error:
        raise ApiError(f"the API's token: {error}") from None


def write_json(path: Path, result: Any) -> None:
    """Write the file of ``--json``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")


def keep_up(server: "TritonServer | None", service: "ApiProcess | None") -> None:
    """Keep the servers up until Ctrl-C, or until one of them ends."""
    logging.getLogger("chirpwatch").info("the servers stay up until Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if server is not None:
                server.check()
            if service is not None:
                service.check()
            time.sleep(1)
