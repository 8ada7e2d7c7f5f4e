"""What Lightning trains: the network, its loss and its optimizer."""

import lightning
import torch
from torch import Tensor

from train.network import Network
from train.windows import Batch

# Where in its receptive field a frame has the merger whose time it tells.
PEAK_FRACTION = 0.78
TIMING_WEIGHT = 0.1


class Detector(lightning.LightningModule):
    """Tells windows with a signal from windows without, and when the merger is.

    Args:
        network: What is trained.
        steps: Steps of the whole training, for the learning-rate cycle.
        learning_rate: Highest learning rate of the cycle.
        weight_decay: Of AdamW.
    """

    def __init__(
        self,
        network: Network,
        steps: int,
        learning_rate: float = 6e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        self.network = network
        self.steps = steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of one batch as made by :meth:`train.windows.WindowMaker.batch`."""
        windows, labels, mergers, _ = batch
        network = self.network
        scores, salience = network.head.evaluate(network.features(windows).sum(1))
        scores, positive = scores.float().squeeze(1), labels > 0
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels)
        frame = mergers[positive] - PEAK_FRACTION * network.receptive_field
        frame = (frame / network.geometry.frame_size).round().long()
        timing = torch.nn.functional.cross_entropy(
            salience.float().squeeze(2)[positive],
            frame.clamp(0, network.head.kernel_frames - 1),
        )
        found = (scores[positive] > 0).float().mean()
        false = (scores[~positive] > 0).float().mean()
        self.log_dict({"loss": loss, "timing": timing, "found": found, "false": false})
        return loss + TIMING_WEIGHT * timing

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
            optimizer, self.learning_rate, total_steps=self.steps, pct_start=0.15
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
