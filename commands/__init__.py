"""The console command, and the demo."""
