"""``chirpwatch export``: write a trained network as a Triton model repository."""

import hashlib
from pathlib import Path

import click

from chirpwatch.errors import ModelError


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("repository", type=click.Path(path_type=Path))
def export(checkpoint: Path, repository: Path) -> None:
    """Export CHECKPOINT and its whitening as models to the directory REPOSITORY.

    The repository holds ONNX models and their configurations, for the embedded Triton
    server and for NVIDIA's images. Before it is written, the models' results are
    compared with those of PyTorch, a float64 whitening filter and gwpy; parity.json
    beside the models holds the differences. The training's validation.md, beside
    CHECKPOINT, is copied to training.md. An existing repository is replaced once the
    new one is complete.
    """
    # Imported here, as the other commands must work without torch.
    try:
        from chirpwatch.export.build import export_repository
        from chirpwatch.train.networks.checkpoint import load_sliding
    except ModuleNotFoundError as error:
        raise ModelError(
            f"export needs {error.name}: pip install 'chirpwatch[train]'"
        ) from None
    network, details = load_sliding(checkpoint)
    offset = details.get("peak_offset_size")
    if offset is None:
        raise ModelError(
            f"{checkpoint}: expected the calibration peak_offset_size, found none; the "
            "training sets it at its end: run it to the end"
        )
    checkpoint_digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    provenance = details | {"checkpoint_sha256": checkpoint_digest}
    report = checkpoint.with_name("validation.md")
    reports = {"training.md": report.read_text()} if report.exists() else {}
    digest = export_repository(network, float(offset), provenance, reports, repository)
    click.echo(f"model {digest} in {repository}")
    click.echo((repository / "parity.json").read_text(), nl=False)
