"""The networks by name: what a configuration or a checkpoint calls them."""

from typing import Any

from chirpwatch.errors import ModelError
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.baseline import (
    DenseResNet,
    SeedResNet,
)
from chirpwatch.train.networks.matched import MatchedNetwork
from chirpwatch.train.networks.network import Network

Sliding = MatchedNetwork | Network
"""Networks that look at each detector alone first: those that can be served."""

Scorer = Sliding | DenseResNet | SeedResNet
MODELS: dict[
    str,
    type[MatchedNetwork] | type[Network] | type[DenseResNet] | type[SeedResNet],
] = {
    "matched": MatchedNetwork,
    "split": Network,
    "dense": DenseResNet,
    "seed": SeedResNet,
}


def build_model(
    name: str, geometry: Geometry, hyperparameters: dict[str, Any]
) -> Scorer:
    """Make a network with new weights.

    Args:
        name: Key of ``MODELS``.
        geometry: Kernel, stride and frame sizes.
        hyperparameters: What the network takes beside the geometry.

    Raises:
        ModelError: There is no such network, or it takes no such hyper-parameter.
    """
    if name not in MODELS:
        raise ModelError(f"model: expected {', '.join(MODELS)}, found {name!r}")
    try:
        return MODELS[name](geometry, **hyperparameters)
    except TypeError as error:
        raise ModelError(f"model {name}: {error}") from None


def model_name(network: Scorer) -> str:
    """Name of a network in ``MODELS``."""
    return next(name for name, kind in MODELS.items() if type(network) is kind)
