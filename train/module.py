"""What Lightning trains: a network, its loss and its optimizer."""

from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor, nn

from chirpwatch.errors import ModelError
from chirpwatch.geometry import Geometry
from train.models import build_model
from train.windows import Batch

if TYPE_CHECKING:
    from train.deployment import DeployedValidation

# Where in its receptive field a frame has the merger whose time it tells.
PEAK_FRACTION = 0.78
GEOMETRY = Geometry()


class Detector(lightning.LightningModule):
    """Tells windows with a signal from windows without, and when the merger is.

    Args:
        model: Which network, a key of :data:`train.models.MODELS`.
        hyperparameters: What that network takes beside the geometry.
        learning_rate: Highest learning rate of the cycle.
        weight_decay: Of AdamW.
        warmup_share: Share of the steps over which the learning rate rises.
        timing_weight: Weight of the loss of the merger's time, in networks that tell
            it.
        growth_weight: Weight of a loss that asks scores of loud mergers to grow with
            the SNR: softplus(growth_slope * SNR - score) from growth_min_snr on.
            Without it a score of 10 is as good as one of 50, and loud mergers, which
            loud glitches resemble more, end up below fainter ones.
        growth_slope: Score wanted for each unit of SNR.
        growth_min_snr: Smallest network SNR that it is asked of.
        geometry: Kernel, stride and frame sizes.
        steps: Steps of the whole training, for the learning-rate cycle.
    """

    def __init__(
        self,
        model: str = "split",
        hyperparameters: dict[str, Any] | None = None,
        learning_rate: float = 6e-3,
        weight_decay: float = 1e-2,
        warmup_share: float = 0.15,
        timing_weight: float = 0.1,
        growth_weight: float = 0.0,
        growth_slope: float = 0.5,
        growth_min_snr: float = 12.0,
        geometry: Geometry = GEOMETRY,
        steps: int = 6500,
    ) -> None:
        super().__init__()
        self.network = build_model(model, geometry, hyperparameters or {})
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_share, self.timing_weight = warmup_share, timing_weight
        self.growth_weight, self.growth_slope = growth_weight, growth_slope
        self.growth_min_snr = growth_min_snr
        self.steps = int(steps)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of one batch as made by :meth:`train.windows.WindowMaker.batch`."""
        windows, labels, mergers, snrs = batch
        network = self.network
        scores, salience = network.evaluate(windows)
        scores, positive = scores.float().squeeze(1), labels > 0
        loss = nn.functional.binary_cross_entropy_with_logits(scores, labels)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        figures = {
            "found": (scores[positive] > 0).float().mean(),
            "false": (scores[~positive] > 0).float().mean(),
            "learning_rate": optimizer.param_groups[0]["lr"],
        }
        total = loss
        if self.growth_weight:
            missing = nn.functional.softplus(self.growth_slope * snrs - scores)
            growth = torch.where(snrs >= self.growth_min_snr, missing, 0).mean()
            figures["growth"] = growth
            total = total + self.growth_weight * growth
        if salience is not None:
            frame = mergers[positive] - PEAK_FRACTION * network.receptive_field
            frame = (frame / network.geometry.frame_size).round().long()
            timing = nn.functional.cross_entropy(
                salience.float().squeeze(2)[positive],
                frame.clamp(0, salience.shape[1] - 1),
            )
            figures["timing"] = timing
            total = total + self.timing_weight * timing
        self.log("loss", loss, prog_bar=True)
        self.log_dict(figures)
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """End a training whose weights would no longer be numbers.

        Raises:
            ModelError: The gradient is not finite.
        """
        gradients = [x.grad for x in self.parameters() if x.grad is not None]
        # Of all processes together, so that they end together.
        if not torch.isfinite(nn.utils.get_total_norm(gradients)):
            raise ModelError(
                f"step {self.global_step}: expected finite gradients, found others; "
                "the checkpoints are from before. Is the strain sound, and "
                f"model.learning_rate ({self.learning_rate:g}) not too high?"
            )

    def validation_step(
        self, validation: "DeployedValidation | None", index: int
    ) -> None:
        """Judge the network as deployed, in single precision, by the first process."""
        figures: dict[str, float] = {}
        if validation is not None:
            with torch.autocast(self.device.type, enabled=False):
                figures = validation.evaluate(self.network)
        # Every process decides alike which weights are the best.
        figures = self.trainer.strategy.broadcast(figures)
        several = self.trainer.world_size > 1
        self.log_dict(figures, batch_size=1, prog_bar=True, sync_dist=several)

    def configure_optimizers(
        self,
    ) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW under one cycle of the learning rate."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.learning_rate,
            total_steps=self.steps,
            pct_start=self.warmup_share,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
