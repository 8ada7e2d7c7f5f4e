"""Options that the commands share: which strain, which servers, what to leave."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from chirpwatch.errors import ApiError

if TYPE_CHECKING:
    from chirpwatch.api.process import ApiProcess
    from chirpwatch.serve.embedded import TritonServer
    from chirpwatch.streamer.source import Source

SHIPPED = Path(__file__).parent.parent / "model_repo"

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


def connection(
    url: str | None, token_file: Path | None
) -> tuple[str, str | None] | None:
    """Address and token of a running API, or None where no address is given.

    Raises:
        ApiError: The token's file cannot be read.
    """
    if url is None:
        return None
    if token_file is None:
        return url, None
    try:
        return url, token_file.read_text().strip()
    except OSError as error:
        raise ApiError(f"the API's token: {error}") from None


def wait(
    console: Console, server: "TritonServer | None", service: "ApiProcess | None"
) -> None:
    """Keep the servers up until Ctrl-C, or until one of them ends."""
    console.print("The servers stay up until Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if server is not None:
                server.check()
            if service is not None:
                service.check()
            time.sleep(1)
