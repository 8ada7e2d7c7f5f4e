"""The command `chirpwatch api`, which runs the results service."""

import contextlib
import ipaddress
import os
import secrets
import socket
import sys
from pathlib import Path

import click

from chirpwatch.errors import (
    ApiError,
    ChirpwatchError,
)
from chirpwatch.logs import LOG_FORMAT

TOKEN_VARIABLE = "CHIRPWATCH_API_TOKEN"  # noqa: S105 - the name, not a token
READY = "chirpwatch API at "
"""Start of the line that prints the API's address."""


@click.command("api")
@click.option(
    "--database",
    default="chirpwatch.db",
    show_default=True,
    help="SQLite file (made if missing), or a database URL such as "
    "postgresql+psycopg://host/name.",
)
@click.option(
    "--database-password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the password for the database URL.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; a token is required unless it is loopback.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 chooses a free port and prints it.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the token for writing; created with a random token if missing, "
    f"readable by you alone. Default: the token in {TOKEN_VARIABLE}, if set.",
)
@click.option(
    "--triton",
    metavar="HOST:PORT",
    help="gRPC address of the Triton server that /readyz checks.",
)
@LOG_FORMAT
def command(
    database: str,
    database_password_file: Path | None,
    host: str,
    port: int,
    token_file: Path | None,
    triton: str | None,
) -> None:
    """Run the results service: an HTTP API and a live page.

    It stores the results of searches, and answers false-alarm rates, candidates and
    sensitivity. It prints its address; the page is there, and the API's description at
    /openapi.json.
    """
    try:
        if database_password_file is not None:
            database = _with_password(database, database_password_file)
        serve(database, host, port, token_file, triton)
    except ChirpwatchError as error:
        raise click.ClickException(str(error)) from None


def serve(
    database: str,
    host: str,
    port: int,
    token_file: Path | None = None,
    triton: str | None = None,
) -> None:
    """Run the API until it is stopped by a signal.

    Args:
        database: Database URL, or path of an SQLite file.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        token_file: File with the token for writing; created if missing.
        triton: gRPC address of the Triton server that /readyz checks.

    Raises:
        ApiError: The port is taken, the database cannot be opened, or `host` is not
            loopback and there is no token.
    """
    token = _token(token_file)
    if token is None and not _is_loopback(host):
        raise ApiError(
            f"--host {host}: expected a token, since other machines could write; give "
            f"--token-file, or set {TOKEN_VARIABLE}"
        )

    from chirpwatch.api.app import create_app
    from chirpwatch.api.server import Server

    app = create_app(database, token, triton)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"{READY}http://{shown}:{listener.getsockname()[1]}")
    sys.stdout.flush()
    Server(app).run(sockets=[listener])


def _with_password(url: str, path: Path) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        password = path.read_text().strip()
        return make_url(url).set(password=password).render_as_string(False)
    except (OSError, UnicodeError) as error:
        raise ApiError(f"--database-password-file cannot be read: {error}") from None
    except ArgumentError:
        raise ApiError(
            "--database-password-file: expected a database URL as --database, found a "
            "file name"
        ) from None


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        token = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise ApiError(f"--token-file {path} cannot be read ({error})") from None
    if not token or not token.isascii():
        raise ApiError(
            f"--token-file {path}: expected a token in ASCII, found none; delete the "
            "file to have it created"
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm, which costs 40 ms for each answer, only if the
    # socket names its protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Otherwise the port stays unavailable for a minute after its last use.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ApiError(
            f"cannot listen on {host} port {port} ({error.strerror}); "
            "choose another --port, or 0 for a free one"
        ) from None
    return listener
