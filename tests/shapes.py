"""Checks calls against the shapes in signatures, while tests run."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import install_import_hook

MODULES = [
    "chirpwatch.export.networks",
    "chirpwatch.train.data.whitening",
    "chirpwatch.train.data.windows",
    "chirpwatch.train.evaluation.scoring",
    "chirpwatch.train.networks",
]
"""Modules whose signatures have shapes, and packages of such modules."""


def install() -> None:
    """Check the modules that are imported from now on."""
    install_import_hook(MODULES, "tests.shapes.check")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's shapes; mypy checks its other types."""
    hints = function.__annotations__
    function.__annotations__ = {
        name: hint for name, hint in hints.items() if "jaxtyping." in repr(hint)
    }
    checked = beartype(function)

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        # In an export sizes are symbols, which a comparison would fix.
        torch = sys.modules.get("torch")
        exporting = torch is not None and torch.compiler.is_exporting()
        return (function if exporting else checked)(*values, **named)

    return call
