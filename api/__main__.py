"""`python -m api`: the same as `chirpwatch api`."""

from api.cli import command

command(prog_name="chirpwatch api")
