"""The option ``--ifos``, for commands that do not read a geometry from a model."""

from collections.abc import Callable
from typing import Any

import click

from chirpwatch.geometry import Geometry


def ifos_option(text: str) -> Callable[[Any], Any]:
    """Decorator that adds ``--ifos`` to a command, as a tuple of detector names.

    Without the option, it is the default geometry's detectors.

    Args:
        text: Help text of the option.
    """
    return click.option(
        "--ifos",
        default=",".join(Geometry().ifos),
        show_default=True,
        callback=_listed,
        metavar="IFO,IFO...",
        help=text,
    )


def _listed(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[str, ...]:
    names = tuple(part.strip() for part in value.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise click.BadParameter(
            "expected distinct detectors, separated by commas, such as H1,L1,V1; found "
            f"{value!r}"
        )
    return names
