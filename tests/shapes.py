"""Checks arrays against the shapes in signatures (jaxtyping) while tests run."""

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
"""Modules and packages whose signatures are checked."""


def install() -> None:
    """Install the check for modules that are imported from now on."""
    install_import_hook(MODULES, "tests.shapes.check")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to check its shapes; mypy checks its other types."""
    hints = function.__annotations__
    function.__annotations__ = {
        name: hint for name, hint in hints.items() if "jaxtyping." in repr(hint)
    }
    checked = beartype(function)

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        # During an export, sizes are symbolic; comparing them would make them fixed.
        torch = sys.modules.get("torch")
        exporting = torch is not None and torch.compiler.is_exporting()
        return (function if exporting else checked)(*values, **named)

    return call
