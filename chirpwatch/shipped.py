"""Models that come with the project."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "model_repo"
"""The model repository that ships."""
