"""``chirpwatch frames``: write recorded strain as low-latency frame files."""

import math
from pathlib import Path

import click

from chirpwatch.geometry import Geometry
from chirpwatch.ifos import ifos_option
from chirpwatch.streamer.options import (
    DATA,
    StrainCommand,
    chosen,
    with_options,
)


@click.command(cls=StrainCommand)
@with_options(DATA)
@ifos_option("Detectors whose frame files are written.")
@click.option(
    "--frames",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory to write to; each detector gets a directory of its own in it.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Speed relative to real time, above 0; 'inf' for as fast as possible.",
)
@click.option(
    "--kept",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Number of newest frame files of each detector to keep.",
)
def frames(
    strain_files: tuple[Path, ...],
    background_file: Path | None,
    split: str,
    ifos: tuple[str, ...],
    directory: Path,
    speed: float,
    kept: int,
) -> None:
    """Write recorded strain as frame files of 1 s, in real time.

    Use it to try and test 'chirpwatch live': the files have the names, channels and
    state vector of low-latency distribution. GPS times are those of the recording. Give
    either --strain or --background.
    """
    source = chosen(strain_files, background_file, split)

    from chirpwatch.streamer.live.frame_writer import (
        FrameWriter,
        replay_frames,
    )

    geometry = Geometry(ifos=ifos)
    segments = source.segments(geometry)
    replay_frames(FrameWriter(directory, kept), segments, geometry.ifos, speed)
    length = sum(math.floor(segment.duration) for segment in segments)
    click.echo(f"wrote {length} s of {', '.join(geometry.ifos)} to {directory}")
