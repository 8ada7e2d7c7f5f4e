"""Training of a network from a configuration, with its checkpoints and report."""

import argparse
import errno
import logging
import shlex
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import click
import lightning
import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch.callbacks import EMAWeightAveraging, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from chirpwatch.atomic import replacing
from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
    StrainError,
)
from chirpwatch.text import one_line
from chirpwatch.train.evaluation.deployment import (
    MIN_EVENTS,
    MIN_WINDOWS,
    SELECTION_SEED,
)
from chirpwatch.train.evaluation.heldout import (
    OtherNoise,
    strain_noise,
)
from chirpwatch.train.evaluation.scoring import has_slides
from chirpwatch.train.evaluation.tables import write_report
from chirpwatch.train.evaluation.validation import VALIDATION_SEED, validate
from chirpwatch.train.fitting.callbacks import (
    AtomicCheckpointIO,
    Checkpoints,
    Identity,
    Loading,
    MetricsLog,
    Printing,
)
from chirpwatch.train.fitting.module import TrainingModule
from chirpwatch.train.fitting.stream import (
    STOCKS,
    WindowData,
)
from chirpwatch.train.networks.bank import shipped_bank_path
from chirpwatch.train.networks.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    probe,
    provenance,
    save_checkpoint,
)

Figures = Literal["full", "quick", "none"]
Monitor = Literal["valid_auroc", "valid_found_day", "valid_found_hour", "valid_loss"]
TRAINER_SETTINGS = (
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "gradient_clip_val",
    "gradient_clip_algorithm",
)
"""Lightning's settings that change the weights; they must match to resume."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _content_digest(path: str | Path | None) -> str | None:
    """Digest of an input file of the training, or None without a file."""
    return None if path is None else probe(path)


class TrainingCLI(LightningCLI):
    """Configures a training with ``LightningCLI``, and runs it.

    Args:
        arguments: Command-line arguments for the parser.
        resume: Resume from the last checkpoint.
        typed: Arguments as the user gave them; recorded in checkpoints and reports.

    Raises:
        ConfigurationError: A key is unknown, or a value is invalid.
    """

    def __init__(
        self, arguments: Sequence[str], resume: bool, typed: Sequence[str]
    ) -> None:
        # Silence Lightning's hints that don't apply here.
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for message in (".*LeafSpec.*", ".*does not have many workers.*"):
            warnings.filterwarnings("ignore", message)
        self.resume = resume
        self.command = shlex.join(["chirpwatch", "train", "fit", *typed])
        try:
            super().__init__(
                TrainingModule,
                WindowData,
                save_config_callback=None,
                seed_everything_default=1,
                parser_kwargs={"exit_on_error": False, "prog": "chirpwatch train fit"},
                args=list(arguments),
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        except (argparse.ArgumentError, MisconfigurationException) as error:
            raise ConfigurationError(one_line(str(error), None)) from None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the training's own keys, and link keys that must agree."""
        parser.add_argument(
            "--folder",
            type=str,
            default="runs/train",
            help="Folder for the training's network, logs, checkpoints and report.",
        )
        parser.add_argument(
            "--steps",
            type=PositiveInt,
            default=6500,
            help="Number of training steps, one batch each.",
        )
        parser.add_argument(
            "--validate_every",
            type=PositiveInt,
            default=500,
            help="Steps between validations; each is followed by a checkpoint.",
        )
        parser.add_argument(
            "--ema_decay",
            type=float | None,
            default=None,
            help="Decay per step of an exponential moving average of the weights; "
            "no average if null.",
        )
        parser.add_argument(
            "--monitor",
            type=Monitor,
            default="valid_auroc",
            help="Validation metric that chooses the best weights.",
        )
        parser.add_argument(
            "--threads",
            type=PositiveInt,
            default=1,
            help="PyTorch threads of each training process.",
        )
        parser.add_argument(
            "--figures",
            type=Figures,
            default="full",
            help="Extent of the final validation and report: full, quick, or none.",
        )
        for source in ("steps", "validate_every"):
            parser.link_arguments(source, f"data.{source}")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("folder", "data.folder")
        parser.link_arguments("steps", "model.steps")
        parser.link_arguments("data.geometry", "model.geometry", apply_on="instantiate")
        parser.set_defaults(
            {
                "trainer.devices": 1,
                "trainer.precision": "bf16-mixed",
                "trainer.gradient_clip_val": 1.0,
                "trainer.enable_model_summary": False,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the given arguments; never those of ``sys.argv``."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Check the configuration, and set the number of threads.

        Raises:
            ConfigurationError: A value is invalid, or two keys contradict each other.
        """
        config = self.config
        reserved = (VALIDATION_SEED, SELECTION_SEED)
        if config.seed_everything in reserved or not isinstance(
            config.seed_everything, int
        ):
            raise ConfigurationError(
                f"seed: expected a number other than the validations' seeds "
                f"({VALIDATION_SEED}, {SELECTION_SEED}), found {config.seed_everything}"
            )
        if config.steps % min(config.steps, config.validate_every):
            raise ConfigurationError(
                f"steps: expected a multiple of validate_every "
                f"({config.validate_every}), found {config.steps}"
            )
        for key, default in (
            ("max_epochs", None),
            ("max_steps", -1),
            ("accumulate_grad_batches", 1),
            ("logger", None),
            ("fast_dev_run", False),
            ("overfit_batches", 0.0),
            ("limit_train_batches", None),
            ("limit_val_batches", None),
            # Checkpoints are written with the validations only.
            ("min_epochs", None),
            ("min_steps", None),
            ("max_time", None),
            ("val_check_interval", None),
            ("check_val_every_n_epoch", 1),
        ):
            if config.trainer[key] != default:
                raise ConfigurationError(
                    f"trainer.{key}: expected it unset, found {config.trainer[key]}; "
                    "use steps, validate_every, data.windows.batch_size or folder"
                )
        for key in ("model.learning_rate", "model.warmup_share", "ema_decay"):
            if config[key] is not None and not 0 < config[key] < 1:
                raise ConfigurationError(
                    f"{key}: expected a number between 0 and 1, found {config[key]}"
                )
        if config.data.workers < 0:
            raise ConfigurationError(
                f"data.workers: expected 0 or more, found {config.data.workers}"
            )
        if config.data.stock_batches and not (
            config.model.model == "matched"
            and config.model.frontend_rate == config.model.filters_rate == 0
            and config.model.slides
        ):
            raise ConfigurationError(
                "data.stock_batches: expected 0, or the model matched with slides and "
                "with frontend_rate and filters_rate of 0, found "
                f"{config.data.stock_batches}; a stock needs frozen frontends"
            )
        # More threads would compete with the workers that make the windows.
        torch.set_num_threads(config.threads)

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Make the trainer with its callbacks, logs and checkpoints.

        Raises:
            ConfigurationError: A trainer setting is invalid, or the folder has a
                training already that is not to be resumed.
            ModelError: The checkpoint to resume from is missing or of another model.
        """
        config, folder = self.config, Path(self.config.folder)
        interval = min(config.steps, config.validate_every)
        self.datamodule.validate_every = interval
        self.identity = Identity(self._settings(interval), self.command)
        self.last = folder / "checkpoints" / "last.ckpt"
        self.resumed_step = 0
        if self.resume:
            self.resumed_step = self.identity.resume(self.last)
        elif self.last.exists():
            raise ConfigurationError(
                f"folder: {folder} has a training already; continue it with --resume, "
                "or choose another folder"
            )
        callbacks: list[Any] = list(self.config_init.trainer.callbacks or [])
        if config.ema_decay is not None:
            callbacks.append(EMAWeightAveraging(decay=config.ema_decay))
        terminal = sys.stdout.isatty()
        callbacks += [
            Loading(),
            self.identity,
            RichProgressBar() if terminal else Printing(),
            Checkpoints(self.last.parent, config.monitor),
        ]
        loggers = [
            MetricsLog(folder / "metrics.csv", self.resumed_step),
            TensorBoardLogger(
                folder, "tensorboard", "", purge_step=self.resumed_step or None
            ),
        ]
        try:
            trainer: lightning.Trainer = super().instantiate_trainer(
                callbacks=callbacks,
                logger=loggers,
                plugins=[AtomicCheckpointIO()],
                max_epochs=config.steps // interval,
                num_sanity_val_steps=0,
                # Each process already seeds windows of its own.
                use_distributed_sampler=False,
                enable_progress_bar=terminal,
                log_every_n_steps=min(config.trainer.log_every_n_steps or 50, interval),
            )
        except (ValueError, MisconfigurationException) as error:
            raise ConfigurationError(f"trainer: {one_line(str(error), None)}") from None
        return trainer

    def _settings(self, interval: int) -> dict[str, Any]:
        """Settings that determine the weights; checkpoints keep them.

        Args:
            interval: Steps between two validations.
        """
        config = self.config
        bank = config.model.bank
        if bank is None and config.model.model == "matched":
            bank = shipped_bank_path()
        return {
            "model": config.model.model,
            "geometry": self.datamodule.geometry.to_json(),
            "hyperparameters": self.model.network.hyperparameters,
            "seed": config.seed_everything,
            "steps": config.steps,
            "windows": asdict(self.datamodule.windows),
            "background": config.data.background,
            "background_content": _content_digest(config.data.background),
            "learning_rate": config.model.learning_rate,
            "weight_decay": config.model.weight_decay,
            "warmup_share": config.model.warmup_share,
            "timing_weight": config.model.timing_weight,
            "growth_weight": config.model.growth_weight,
            "growth_slope": config.model.growth_slope,
            "growth_min_snr": config.model.growth_min_snr,
            "slides": config.model.slides,
            "disturbed_shares": list(config.model.disturbed_shares),
            "low_rate_weight": config.model.low_rate_weight,
            "low_rate_odds": config.model.low_rate_odds,
            "frontend_rate": config.model.frontend_rate,
            "filters_rate": config.model.filters_rate,
            "initial": config.model.initial,
            "initial_content": _content_digest(
                config.model.initial and find_checkpoint(config.model.initial)
            ),
            "bank": config.model.bank,
            "bank_content": _content_digest(bank),
            "stock_batches": config.data.stock_batches,
            "stock_flattening": config.data.stock_flattening,
            "ema_decay": config.ema_decay,
            "validate_every": interval,
            "monitor": config.monitor,
            "threads": config.threads,
            "validation": {
                "length": self.datamodule.validation_length,
                **self.datamodule.validation,
            },
            **{f"trainer.{key}": config.trainer[key] for key in TRAINER_SETTINGS},
        }

    def run(self) -> None:
        """Train, save the best weights, validate them, and write the report.

        Raises:
            ConfigurationError: A setting is invalid for this machine or strain.
            ModelError: The gradient is not finite, or a checkpoint cannot be written.
            StrainError: Recorded strain cannot be used for training.
        """
        trainer, folder = self.trainer, Path(self.config.folder)
        # Check everything before the first file is written.
        self.datamodule.share_size(trainer.world_size)
        self.datamodule.setup("fit")
        if trainer.is_global_zero:
            self._print_notes()
            self._find_test_strain()
            with replacing(folder / "config.yaml") as temporary:
                temporary.write_text(self.parser.dump(self.config, skip_none=False))
        try:
            trainer.fit(
                self.model,
                self.datamodule,
                ckpt_path=self.last if self.resume else None,
                weights_only=True,
            )
        except MisconfigurationException as error:
            raise ConfigurationError(one_line(str(error), None)) from None
        if trainer.is_global_zero:
            self._finish(folder)

    def _print_notes(self) -> None:
        """Print a note if the best weights cannot be chosen, or if versions changed."""
        data, monitor = self.config.data, self.config.monitor
        missing, slides = "", has_slides(self.model.network)
        if monitor == "valid_auroc" and data.validation_windows < MIN_WINDOWS:
            missing = f"data.validation_windows of {MIN_WINDOWS} or more"
        elif "found" in monitor and len(data.geometry.ifos) < 2:
            missing = "two detectors to shift against each other"
        elif "found" in monitor and not (slides or data.validation_plain_slides):
            missing = (
                "data.validation_plain_slides that give at least "
                f"{MIN_EVENTS} background events"
            )
        if missing:
            click.echo(
                f"note: {monitor} needs {missing}; without it the best weights cannot "
                "be chosen, and the last ones are kept"
            )
        for name, (before, now) in self.identity.other_versions.items():
            click.echo(
                f"note: the training started with {name} {before} and resumes with "
                f"{now}; the weights may differ from an uninterrupted training's"
            )

    def _find_test_strain(self) -> None:
        """Add the background file's test split to the final validation, if present."""
        self.noises: list[OtherNoise] = []
        path = self.config.data.background
        if path is not None:
            try:
                self.noises.append(strain_noise(path, self.datamodule.geometry))
            except StrainError as error:
                click.echo(f"note: the report will cover simulated noise only: {error}")

    def _finish(self, folder: Path) -> None:
        """Save the best weights, validate them, and write the report."""
        network, config = self.model.network.cpu(), self.config
        best = torch.load(
            folder / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True
        )
        network.load_state_dict(
            {
                name.removeprefix("network."): weight
                for name, weight in best["state_dict"].items()
            }
        )
        network.eval()
        details: dict[str, Any] = {
            **{
                key: value
                for key, value in self.identity.identity.items()
                if key not in ("model", "geometry", "hyperparameters")
            },
            "command": self.identity.command,
            "best_step": best["global_step"],
            "simulated": self.datamodule.simulated,
            # ``final`` is empty if the training had ended before it was resumed.
            **(self.identity.final or self.identity.before),
            **provenance(config.data.background),
        }
        path = folder / "network.ckpt"
        save_checkpoint(path, network, details)
        shutil.rmtree(folder / STOCKS, ignore_errors=True)
        if config.figures == "none":
            return
        from chirpwatch.train.evaluation.report import write_run_report

        quick = config.figures == "quick"
        result = validate(network, VALIDATION_SEED, quick=quick, noises=self.noises)
        details |= result["timing"]
        save_checkpoint(path, network, details)
        _, details = load_checkpoint(path)
        write_report(folder / "validation.json", {"checkpoint": details} | result)
        write_run_report(folder)


def fit(
    folder: str | Path | None = None,
    configs: Sequence[str | Path] = ("matched",),
    seed: int | None = None,
    resume: bool = False,
    arguments: Sequence[str] = (),
) -> Path:
    """Train a network, as ``chirpwatch train fit`` does.

    Args:
        folder: Folder of the training. If None, the configuration's ``folder``, or else
            ``runs/train/NAME`` with the first configuration's name.
        configs: Names of configurations that come with the project, or YAML files;
            later ones override earlier ones.
        seed: Seed of weights and windows; the configuration's if None.
        resume: Resume the training in ``folder`` with its own configuration.
        arguments: Further keys of the configuration, such as ``("--steps", "100")``.

    Returns:
        Folder of the training.

    Raises:
        ConfigurationError: A key is unknown, a value is invalid, or the folder has a
            training with other settings.
        ModelError: The checkpoint to resume from has another model or geometry, the
            gradient is not finite, or the disk is full.
        StrainError: Recorded strain cannot be used for training.
    """
    if resume:
        if folder is None:
            raise ConfigurationError(
                "resume: expected --folder of the training to resume, found no folder"
            )
        configs = [Path(folder) / "config.yaml"]
    typed = [f"--config={config}" for config in configs]
    if folder is not None:
        typed.append(f"--folder={folder}")
    if seed is not None:
        typed.append(f"--seed_everything={seed}")
    typed += arguments
    default = f"--folder=runs/train/{Path(configs[0]).stem}"
    files = [f"--config={find_config(config)}" for config in configs]
    cli = TrainingCLI([default, *files, *typed[len(configs) :]], resume, typed)
    try:
        cli.run()
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise ModelError(
            f"{cli.config.folder}: cannot write the log: {error.strerror}; the "
            "checkpoints are intact. Free some space, then continue with --resume"
        ) from error
    return Path(cli.config.folder)


def find_config(name: str | Path) -> Path:
    """Path of a configuration file.

    Args:
        name: A YAML file, or the name of a configuration that comes with the project.

    Raises:
        ConfigurationError: Neither exists.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = Path(str(resources.files("chirpwatch.train") / "configs"))
    if (shipped / f"{name}.yaml").is_file():
        return shipped / f"{name}.yaml"
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise ConfigurationError(f"config: expected a YAML file or {names}, found {name}")
