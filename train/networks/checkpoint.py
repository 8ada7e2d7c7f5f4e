"""Checkpoints: a network's weights, geometry, hyperparameters and provenance."""

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

# The packages whose versions may change the weights that a training gives.
PACKAGES = ("torch", "ml4gw", "lightning", "numpy", "scipy")

# Number of pieces of a file that ``probe`` reads, and bytes of a piece.
PROBES, PROBE_SIZE = 64, 4096


def package_versions() -> dict[str, str]:
    """Installed versions of ``PACKAGES``."""
    return {name: metadata.version(name) for name in PACKAGES}


def probe(path: str | Path) -> str:
    """Compute a file's fingerprint: SHA-256 of its size and of 64 pieces.

    Files of recorded strain can be too large to hash completely before each training.

    Raises:
        StrainError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for i in range(PROBES):
                file.seek(max(0, size - PROBE_SIZE) * i // (PROBES - 1))
                digest.update(file.read(PROBE_SIZE))
    except OSError as error:
        raise StrainError(f"{path}: expected a strain file: {error}") from None
    return digest.hexdigest()


def provenance(background: str | Path | None = None) -> dict[str, Any]:
    """Versions of ``PACKAGES``, and the SHA-256 of the file from which noise is made.

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
    """Path of a checkpoint.

    Args:
        name: A path, or the name of a checkpoint that comes with the project. A file
            at the path has precedence.
    """
    folder = Path(str(resources.files("chirpwatch.train") / "checkpoints")) / name
    is_shipped = not Path(name).is_file() and (folder / "network.ckpt").exists()
    return folder / "network.ckpt" if is_shipped else Path(name)


def write_content(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dictionary with ``torch.save``, atomically.

    Raises:
        ModelError: The file cannot be written, for example on a full disk. A previous
            file at the path stays as it was.
    """
    # Serialised in memory first: PyTorch's own writer hides the system's error.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        kept = "the previous one is kept" if Path(path).exists() else "none is there"
        raise ModelError(
            f"{path}: expected to write a checkpoint of "
            f"{buffer.getbuffer().nbytes / 1e6:.1f} MB: {error.strerror or error}; "
            f"{kept}. Free disk space, or choose another folder, and try again"
        ) from error


def save_checkpoint(path: str | Path, network: Scorer, details: dict[str, Any]) -> None:
    """Write a network's weights (no optimizer), geometry and hyperparameters.

    Args:
        path: File to write, atomically.
        network: Network to save.
        details: Further metadata, which ``load_checkpoint`` returns; plain Python
            values.

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
        model: Required network, a key of ``MODELS``; any if None.
        geometry: Required geometry; any if None.

    Returns:
        The network in evaluation mode, and the metadata: ``model``, ``geometry``
        (JSON), ``hyperparameters``, and the details given to ``save_checkpoint``.

    Raises:
        ModelError: The file is missing, is not a chirpwatch checkpoint, or holds
            another model or geometry than required.
    """
    if not Path(path).exists():
        raise ModelError(
            f"{path}: no such checkpoint; make one with 'chirpwatch train fit'"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        name = content["model"]
        stored = Geometry.from_json(content["geometry"])
        network = build_model(name, stored, content["hyperparameters"])
        network.load_state_dict(content["weights"])
        details = dict(content["details"])
    except Exception as error:  # torch.load raises errors of any type
        raise ModelError(
            f"{path}: expected a chirpwatch checkpoint: {error}"
        ) from error
    required: dict[str, Any] = {}
    if model is not None:
        required["model"] = model
    if geometry is not None:
        required["geometry"] = geometry.to_json()
    check_same(path, {"model": name, "geometry": content["geometry"]}, required)
    details["model"] = name
    details["geometry"] = content["geometry"]
    details["hyperparameters"] = content["hyperparameters"]
    return network.eval(), details


def load_sliding(path: str | Path) -> tuple[Sliding, dict[str, Any]]:
    """Read a checkpoint of a network that can be served; see ``models.Sliding``.

    Returns:
        As ``load_checkpoint``.

    Raises:
        ModelError: As for ``load_checkpoint``, or the network cannot be served.
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
    path: str | Path, stored: Mapping[str, Any], required: Mapping[str, Any]
) -> None:
    """Check a checkpoint's model and geometry.

    Args:
        path: Path of the checkpoint, for the message.
        stored: The checkpoint's ``model`` (name) and ``geometry`` (JSON).
        required: Required values of the same keys; a missing key is not checked.

    Raises:
        ModelError: Model or geometry differ.
    """
    for key in ("model", "geometry"):
        if key in required and stored[key] != required[key]:
            raise ModelError(
                f"{path}: expected a checkpoint of the {key} {required[key]}, found "
                f"{stored[key]}"
            )
