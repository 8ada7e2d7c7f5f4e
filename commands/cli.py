"""The console command ``chirpwatch``, which dispatches to its subcommands."""

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
    """Command group that imports a subcommand's module when it is run or listed.

    Serving must work without torch, and ``--help`` must be fast. So a subcommand's
    module imports at its top only click, rich, the standard library and modules of the
    project with the same restriction. Its function imports the rest after the options
    have been checked.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands' names, in the order in which data flow through."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand; None if its name is unknown."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup)
@click.version_option(__version__)
def cli() -> None:
    """Detect mergers of black holes in the strain of several detectors, online.

    In the order of the data flow: fetch or simulate strain; train a network; export it
    to a model repository, and serve that with Triton; replay recorded strain, measure
    background, or search live frame files; query the results service for candidates,
    false-alarm rates and the sensitive volume.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console command; a ChirpwatchError prints its message, exit status 1."""
    try:
        # Each option can also be set in the environment, such as CHIRPWATCH_API_PORT.
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
