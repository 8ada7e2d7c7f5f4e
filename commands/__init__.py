"""Entry points: the console command, and the demo."""
