"""Checkpoints: a network's weights with all that is needed to use and to remake it."""

import hashlib
import io
import os
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, overload

import torch

from chirpwatch.atomic import replacing
from chirpwatch.errors import (
    ModelError,
    StrainError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.curves import shipped_path
from chirpwatch.train.networks.models import (
    MODELS,
    Scorer,
    Sliding,
    build_model,
    model_name,
)
from chirpwatch.train.networks.network import Network

PACKAGES = ("torch", "ml4gw", "lightning", "numpy", "scipy")


PROBES, PROBE_SIZE = 64, 4096


def package_versions() -> dict[str, str]:
    """Versions of the packages that weights depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def probe(path: str | Path) -> str:
    """Digest of a file's size and of pieces of it, to know it again by.

    Recorded strain may be more than one wants to read through before a training.

    Raises:
        StrainError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for i in range(PROBES):
                file.seek(max(0, size - PROBE_SIZE) * i // (PROBES - 1))
                digest.update(file.read(PROBE_SIZE))
    except OSError as error:
        raise StrainError(f"{path}: expected a file of strain: {error}") from None
    return digest.hexdigest()


def provenance(background: str | Path | None = None) -> dict[str, Any]:
    """Versions of the packages that matter, and the hash of what noise is made from.

    Args:
        background: File of recorded strain; the published noise curves if None.
    """
    with open(background or shipped_path(), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "versions": package_versions(),
        "data_hash": digest,
    }


def find_checkpoint(name: str) -> Path:
    """File of a checkpoint.

    Args:
        name: A file, or the name of a checkpoint that comes with the project.
    """
    shipped = Path(str(resources.files("chirpwatch.train") / "checkpoints")) / name
    found = not Path(name).is_file() and (shipped / "network.ckpt").exists()
    return shipped / "network.ckpt" if found else Path(name)


def write_content(path: str | Path, content: dict[str, Any]) -> None:
    """Write what PyTorch can store; the file appears whole or not at all.

    Raises:
        ModelError: The file cannot be written, as on a full disk. What was there
            before is there still.
    """
    # Stored in memory first: PyTorch's own writer hides what the disk said.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        kept = "the former one is intact" if Path(path).exists() else "none was there"
        raise ModelError(
            f"{path}: expected to write a checkpoint of "
            f"{buffer.getbuffer().nbytes / 1e6:.1f} MB: {error.strerror or error}; "
            f"{kept}. Make room and try again"
        ) from error


def save_checkpoint(path: str | Path, network: Scorer, details: dict[str, Any]) -> None:
    """Write weights (no optimizer), geometry and hyper-parameters.

    Args:
        path: The file; it appears whole or not at all.
        network: Whose weights are kept.
        details: Anything else that ``load_checkpoint`` shall give back; plain
            Python values.

    Raises:
        ModelError: The file cannot be written.
    """
    content = {
        "weights": network.state_dict(),
        "model": model_name(network),
        "geometry": network.geometry.to_json(),
        "hyperparameters": network.hyperparameters,
        "details": details,
    }
    write_content(path, content)


@overload
def load_checkpoint(
    path: str | Path, model: Literal["split"], geometry: Geometry | None = None
) -> tuple[Network, dict[str, Any]]: ...


@overload
def load_checkpoint(
    path: str | Path, model: str | None = None, geometry: Geometry | None = None
) -> tuple[Scorer, dict[str, Any]]: ...


def load_checkpoint(
    path: str | Path, model: str | None = None, geometry: Geometry | None = None
) -> tuple[Scorer, dict[str, Any]]:
    """Read a checkpoint.

    Args:
        path: File that ``save_checkpoint`` wrote.
        model: The only network that will do, a key of ``MODELS``.
        geometry: The only geometry that will do.

    Returns:
        The network in evaluation mode, and the metadata: ``model``, ``geometry``
        (JSON), ``hyperparameters``, and the details given when it was saved.

    Raises:
        ModelError: The file is not there or is no such checkpoint, or it is of another
            model or geometry.
    """
    if not Path(path).exists():
        raise ModelError(
            f"{path}: no such checkpoint; make one with 'chirpwatch train fit'"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        name = content["model"]
        found = Geometry.from_json(content["geometry"])
        network = build_model(name, found, content["hyperparameters"])
        network.load_state_dict(content["weights"])
        details = dict(content["details"])
    except Exception as error:  # torch.load raises whatever unpickling met
        raise ModelError(
            f"{path}: expected a chirpwatch checkpoint: {error}"
        ) from error
    wanted: dict[str, Any] = {}
    if model is not None:
        wanted["model"] = model
    if geometry is not None:
        wanted["geometry"] = geometry.to_json()
    check_same(path, {"model": name, "geometry": content["geometry"]}, wanted)
    details["model"] = name
    details["geometry"] = content["geometry"]
    details["hyperparameters"] = content["hyperparameters"]
    return network.eval(), details


def load_sliding(path: str | Path) -> tuple[Sliding, dict[str, Any]]:
    """Read a checkpoint of a network that looks at each detector alone first.

    Returns:
        As ``load_checkpoint``.

    Raises:
        ModelError: There is no such checkpoint, or it is of another network.
    """
    network, details = load_checkpoint(path)
    if not isinstance(network, Sliding):
        names = [name for name, kind in MODELS.items() if issubclass(kind, Sliding)]
        raise ModelError(
            f"{path}: expected a checkpoint of the model {' or '.join(names)}, found "
            f"{details['model']}"
        )
    return network, details


def check_same(
    path: str | Path, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Refuse a checkpoint of another network than the one wanted.

    Args:
        path: The checkpoint, for the message.
        found: Its ``model``, by name, and ``geometry``, JSON.
        wanted: The same, as far as it matters.

    Raises:
        ModelError: Model or geometry differ.
    """
    for key in ("model", "geometry"):
        if key in wanted and found[key] != wanted[key]:
            raise ModelError(
                f"{path}: expected a checkpoint of the {key} {wanted[key]}, found "
                f"{found[key]}"
            )
