"""The console command: one thin door to each command."""

import importlib
import sys
from collections.abc import Sequence

import click

from chirpwatch import __version__
from chirpwatch.errors import ChirpwatchError

COMMANDS = {
    "fetch": "chirpwatch.train.fetch_cli:fetch",
    "simulate": "chirpwatch.train.simulate_cli:simulate",
    "train": "chirpwatch.train.cli:train",
    "export": "chirpwatch.export.cli:export",
    "serve": "chirpwatch.serve.cli:serve",
    "replay": "chirpwatch.streamer.replay.cli:replay",
    "background": "chirpwatch.streamer.background.cli:background",
    "live": "chirpwatch.streamer.live.cli:live",
    "frames": "chirpwatch.streamer.live.frames_cli:frames",
    "api": "chirpwatch.api.cli:command",
    "demo": "chirpwatch.commands.demo:demo",
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is named or listed.

    Serving must not need torch, and help must not wait for it. So a command's module
    imports at its top only click, rich, the standard library and modules of the project
    that import no more; the command's function imports the rest once its options are
    checked.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which data flow through them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup)
@click.version_option(__version__)
def cli() -> None:
    """Detect compact binary mergers in the strain of several detectors, online.

    The parts, in the order in which data flow through them: fetch or simulate strain,
    train a network, export it to a model repository, serve that with Triton, replay
    strain through it, and ask the results API what was found and how far the search
    could see.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console command; a known error ends it with its message and status 1."""
    try:
        # Every option may be given in the environment: CHIRPWATCH_API_PORT.
        cli.main(
            arguments,
            prog_name="chirpwatch",
            standalone_mode=True,
            auto_envvar_prefix="CHIRPWATCH",
        )
    except ChirpwatchError as error:
        click.echo(f"chirpwatch: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
