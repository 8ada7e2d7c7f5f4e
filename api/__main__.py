"""`python -m chirpwatch.api`: the same as `chirpwatch api`."""

from chirpwatch.api.cli import command

command(prog_name="chirpwatch api")
