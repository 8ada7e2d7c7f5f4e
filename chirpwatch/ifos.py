"""The option that names detectors, for commands that no geometry tells."""

from collections.abc import Callable
from typing import Any

import click

from chirpwatch.geometry import Geometry


def ifos_option(text: str) -> Callable[[Any], Any]:
    """Give a command ``--ifos``, a tuple of names; the default geometry's if not given.

    Args:
        text: Its help.
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
            f"expected distinct detectors with commas, such as H1,L1,V1; found "
            f"{value!r}"
        )
    return names
