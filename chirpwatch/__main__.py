"""``python -m chirpwatch``, the same as the console command ``chirpwatch``."""

from chirpwatch.commands.cli import main

main()
