"""Checkpoints: a network's weights with all that is needed to use and to remake it."""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from chirpwatch.atomic import replacing
from chirpwatch.errors import ModelError
from chirpwatch.geometry import Geometry
from train.data.curves import shipped_path
from train.network import Network

PACKAGES = ("torch", "ml4gw", "lightning", "numpy", "scipy")


def provenance() -> dict[str, Any]:
    """Versions of the packages that matter, and the hash of the noise curves."""
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "data_hash": hashlib.sha256(shipped_path().read_bytes()).hexdigest(),
    }


def save_checkpoint(
    path: str | Path, network: Network, details: dict[str, Any]
) -> None:
    """Write weights (no optimizer), geometry and hyper-parameters.

    Args:
        path: The file; it appears whole or not at all.
        network: Whose weights are kept.
        details: Anything else that :func:`load_checkpoint` shall give back; plain
            Python values.
    """
    content = {
        "weights": network.state_dict(),
        "geometry": network.geometry.to_json(),
        "hyperparameters": network.hyperparameters,
        "details": details,
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Read a checkpoint.

    Args:
        path: File that :func:`save_checkpoint` wrote.

    Returns:
        The network in evaluation mode, and the metadata: ``geometry`` (JSON),
        ``hyperparameters``, and the details given when it was saved.

    Raises:
        ModelError: The file is not there or is no such checkpoint.
    """
    if not Path(path).exists():
        raise ModelError(
            f"{path}: no such checkpoint; make one with 'chirpwatch train'"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        geometry = Geometry.from_json(content["geometry"])
        network = Network(geometry, **content["hyperparameters"])
        network.load_state_dict(content["weights"])
        details = dict(content["details"])
    except Exception as error:  # torch.load raises whatever unpickling met
        raise ModelError(
            f"{path}: expected a chirpwatch checkpoint: {error}"
        ) from error
    details["geometry"] = content["geometry"]
    details["hyperparameters"] = content["hyperparameters"]
    return network.eval(), details
