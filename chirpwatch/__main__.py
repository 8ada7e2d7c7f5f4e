"""`python -m chirpwatch`: the same as the console command."""

from chirpwatch.commands.cli import main

main()
