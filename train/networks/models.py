"""Registry of the networks by the names that configurations and checkpoints use."""

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
"""Networks with a frontend for each detector alone; only these can be served."""

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
    """Make a network with freshly initialised weights.

    Args:
        name: Key of ``MODELS``.
        geometry: Kernel, stride and frame sizes.
        hyperparameters: Further arguments of the network's constructor.

    Raises:
        ModelError: The name is not in ``MODELS``, or the network does not take one of
            the hyperparameters.
        GeometryError: The network does not fit the geometry.
    """
    if name not in MODELS:
        raise ModelError(f"model: expected {', '.join(MODELS)}, found {name!r}")
    try:
        return MODELS[name](geometry, **hyperparameters)
    except TypeError as error:
        raise ModelError(f"model {name}: {error}") from None


def model_name(network: Scorer) -> str:
    """Name under which a network is registered in ``MODELS``."""
    return next(name for name, kind in MODELS.items() if type(network) is kind)
