"""What Lightning trains: a network, its loss and its optimizer."""

import math
from typing import TYPE_CHECKING, Any, Self

import lightning
import torch
from torch import Tensor, nn

from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.windows import Batch
from chirpwatch.train.evaluation.scoring import has_slides
from chirpwatch.train.fitting.stock import FrameBatch
from chirpwatch.train.networks.bank import read_bank, shipped_bank
from chirpwatch.train.networks.checkpoint import (
    check_same,
    find_checkpoint,
    load_checkpoint,
)
from chirpwatch.train.networks.matched import MatchedNetwork
from chirpwatch.train.networks.models import (
    Sliding,
    build_model,
)
from chirpwatch.train.networks.network import Network

if TYPE_CHECKING:
    from chirpwatch.train.evaluation.deployment import DeployedValidation

# Windows that detectors are moved by from one slide of a batch to the next.
SLIDE_STEP = 7
# Factor of the learning rate of biases in units of the score.
OFFSET_RATE = 10.0
GEOMETRY = Geometry()


class Detector(lightning.LightningModule):
    """Tells windows with a signal from windows without, and when the merger is.

    Args:
        model: Which network, a key of ``models.MODELS``.
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
        slides: Timeslides in which each batch's windows without a merger are scored,
            for networks that look at each detector alone first; 0 scores them as they
            are.
        disturbed_shares: Share that windows with a glitch in one detector, with a
            merger in one detector alone, and with both or several of these have of all
            windows without a merger that slides score. Their loss is weighted so.
        low_rate_weight: Weight of a second cross-entropy, in which there are
            ``low_rate_odds`` times as many windows without a merger as with one: a
            search works where false alarms are rare.
        low_rate_odds: See ``low_rate_weight``.
        frontend_rate: Factor of the learning rate in a learned frontend; 0 leaves it
            as it is.
        filters_rate: The same for matched filters.
        initial: Checkpoint from which the training of a network of matched filters
            starts, a file or the name of one that comes with the project: of ``split``,
            whose frontend it takes, or of ``matched``, from whose weights it goes on.
        bank: Bank of templates to begin with, for a network of matched filters; the
            one that comes with the project if None, unless ``initial`` has templates.
        geometry: Kernel, stride and frame sizes.
        steps: Steps of the whole training, for the learning-rate cycle.

    Raises:
        ConfigurationError: A value is none that the network can be trained with.
        ModelError: ``initial`` is no checkpoint that the network can start from.
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
        slides: int = 0,
        disturbed_shares: tuple[float, float, float] = (0.1, 0.003, 0.003),
        low_rate_weight: float = 0.0,
        low_rate_odds: float = 300.0,
        frontend_rate: float = 1.0,
        filters_rate: float = 0.0,
        initial: str | None = None,
        bank: str | None = None,
        geometry: Geometry = GEOMETRY,
        steps: int = 6500,
    ) -> None:
        super().__init__()
        self.network = build_model(model, geometry, hyperparameters or {})
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_share, self.timing_weight = warmup_share, timing_weight
        self.growth_weight, self.growth_slope = growth_weight, growth_slope
        self.growth_min_snr = growth_min_snr
        self.slides, self.disturbed_shares = slides, tuple(disturbed_shares)
        self.low_rate_weight, self.low_rate_odds = low_rate_weight, low_rate_odds
        self.frontend_rate, self.filters_rate = frontend_rate, filters_rate
        self.steps = int(steps)
        matched = isinstance(self.network, MatchedNetwork)
        for name, value in (("initial", initial), ("bank", bank)):
            if value is not None and not matched:
                raise ConfigurationError(
                    f"model.{name}: expected none for the model {model}, found {value}"
                )
        if slides and not has_slides(self.network):
            raise ConfigurationError(
                f"model.slides: expected 0 for the model {model}, which sees all "
                f"detectors at once, found {slides}"
            )
        if slides < 0 or sum(self.disturbed_shares) >= 1:
            raise ConfigurationError(
                "model: expected slides of 0 or more and disturbed_shares below 1 "
                f"together, found {slides} and {self.disturbed_shares}"
            )
        if isinstance(self.network, MatchedNetwork):
            self._begin(self.network, initial, bank)
        # Lightning keeps the modes that it finds.
        self.train()

    @staticmethod
    def _begin(network: MatchedNetwork, initial: str | None, bank: str | None) -> None:
        """Give a network the weights that its training starts from."""
        if initial is not None:
            path = find_checkpoint(initial)
            before, details = load_checkpoint(path)
            if isinstance(before, MatchedNetwork):
                check_same(path, details, {"geometry": network.geometry.to_json()})
                if before.hyperparameters != network.hyperparameters:
                    raise ModelError(
                        f"{path}: expected a checkpoint with the hyperparameters "
                        f"{network.hyperparameters}, found {before.hyperparameters}"
                    )
                if bank is not None:
                    raise ConfigurationError(
                        f"model.bank: expected none, since {path} has templates, found "
                        f"{bank}"
                    )
                network.load_state_dict(before.state_dict())
                return
            if not isinstance(before, Network):
                raise ModelError(
                    f"{path}: expected a checkpoint of the model split or matched, "
                    f"found {details['model']}"
                )
            network.set_learned(before)
        network.set_bank(shipped_bank() if bank is None else read_bank(bank))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frontend that is not trained keeps its norms as well."""
        super().train(mode)
        frontend = getattr(self.network, "frontend", None)
        if frontend is not None and not self.frontend_rate:
            frontend.eval()
        return self

    def training_step(self, batch: Batch | FrameBatch, index: int) -> Tensor:
        """Loss of one batch, of windows or of frames from a stock."""
        total, figures = self.losses(batch)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        figures["learning_rate"] = optimizer.param_groups[0]["lr"]
        self.log("loss", figures.pop("loss"), prog_bar=True)
        self.log_dict(figures)
        return total

    def losses(self, batch: Batch | FrameBatch) -> tuple[Tensor, dict[str, Any]]:
        """What is to be made small, and its parts.

        Returns:
            The sum that is trained on, and figures for the log: ``loss``, the
            cross-entropy at equal odds; ``found`` and ``false``, shares of scores above
            0; and the other losses.
        """
        labels, mergers, snrs, disturbances = batch[-4:]
        network, positive = self.network, labels > 0
        salience: Tensor | None
        if self.slides:
            assert isinstance(network, Sliding)
            features = self.features(batch)
            total, shares = self.slide(features, positive, disturbances)
            scores, salience = network.head.evaluate(total)
            labels = (torch.arange(len(total)) < int(positive.sum())).float()
            labels = labels.to(total.device)
            snrs, mergers = snrs[positive], mergers[positive]
            snrs = nn.functional.pad(snrs, (0, len(total) - len(snrs)))
            salience, positive = salience[: len(mergers)], labels > 0
        else:
            assert isinstance(batch, Batch)
            scores, salience = network.evaluate(batch.windows)
            shares = (~positive).float() / (~positive).sum()
            mergers = mergers[positive]
            if salience is not None:
                salience = salience[positive]
        scores = scores.float().squeeze(1)
        loss = cross_entropy(scores, positive, shares, 1.0) / 2
        figures: dict[str, Any] = {
            "loss": loss,
            "found": (scores[positive] > 0).float().mean(),
            "false": (scores[~positive] > 0).float().mean(),
        }
        total = loss
        if self.low_rate_weight:
            rare = cross_entropy(scores, positive, shares, self.low_rate_odds) / 2
            figures["low_rate_loss"] = rare
            total = total + self.low_rate_weight * rare
        if self.growth_weight:
            missing = nn.functional.softplus(self.growth_slope * snrs - scores)
            missing = torch.where(snrs >= self.growth_min_snr, missing, 0)
            # As many positives as negatives, whatever the slides.
            growth = missing.sum() / (2 * positive.sum())
            figures["growth"] = growth
            total = total + self.growth_weight * growth
        if salience is not None:
            assert isinstance(network, Sliding)
            frame = mergers - network.peak_size
            frame = (frame / network.geometry.frame_size).round().long()
            timing = nn.functional.cross_entropy(
                salience.float().squeeze(2), frame.clamp(0, salience.shape[1] - 1)
            )
            figures["timing"] = timing
            total = total + self.timing_weight * timing
        return total, figures

    def features(self, batch: Batch | FrameBatch) -> Tensor:
        """What of each detector is added up, [batch, ifos, channels, frames]."""
        network = self.network
        if isinstance(batch, Batch):
            assert isinstance(network, Sliding)
            return network.features(batch.windows)
        assert isinstance(network, MatchedNetwork)
        values = network.limit(batch.power.flatten(0, 1), batch.frames.flatten(0, 1))
        result: Tensor = values.unflatten(0, batch.power.shape[:2])
        return result

    def slide(
        self, features: Tensor, positive: Tensor, disturbances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add the detectors' frames: of positives as they are, of others in slides.

        Args:
            features: [batch, ifos, channels, frames].
            positive: Whether there is a merger, [batch].
            disturbances: See ``Batch``.

        Returns:
            Sums, [positives + slides * negatives, channels, frames], and the share of
            all windows without a merger that each stands for, 0 for positives.
        """
        apart, kinds = features[~positive], disturbances[~positive]
        totals, both = [features[positive].sum(1)], []
        for slide in range(self.slides):
            total, rolled = apart[:, 0], [kinds[:, 0]]
            for i in range(1, apart.shape[1]):
                shift = i * slide * SLIDE_STEP
                total = total + apart[:, i].roll(shift, 0)
                rolled.append(kinds[:, i].roll(shift, 0))
            totals.append(total)
            both.append(torch.stack(rolled, 1))
        kind, disturbed = torch.cat(both), (torch.cat(both) > 0).sum(1)
        classes = torch.where(disturbed > 1, 3, kind.amax(1))
        shares = torch.zeros(len(kind), device=features.device)
        for number, share in enumerate(
            (1 - sum(self.disturbed_shares), *self.disturbed_shares)
        ):
            inside = classes == number
            shares[inside] = share / inside.sum().clamp(min=1)
        none = torch.zeros(int(positive.sum()), device=features.device)
        return torch.cat(totals), torch.cat([none, shares])

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
        groups = self.rate_groups(self.learning_rate)
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in groups],
            total_steps=self.steps,
            pct_start=self.warmup_share,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def rate_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Parameters that are trained, with their learning rate and weight decay.

        The others no longer take gradients.
        """
        named = dict(self.network.named_parameters())
        frontends, filters = (
            [value for name, value in named.items() if name.startswith(prefix)]
            for prefix in ("frontend.", "matched.")
        )
        offsets: list[nn.Parameter] = []
        if isinstance(self.network, MatchedNetwork):
            offsets = self.network.offsets()
        apart = {id(x) for x in (*frontends, *filters, *offsets)}
        rest = [x for x in named.values() if id(x) not in apart]
        for parameters, rate in (
            (frontends, self.frontend_rate),
            (filters, self.filters_rate),
        ):
            for parameter in parameters:
                parameter.requires_grad_(rate > 0)
        groups = [
            (rest, 1.0, self.weight_decay),
            (frontends, self.frontend_rate, self.weight_decay),
            (filters, self.filters_rate, 0.0),
            # In units of the score, and not to be drawn to 0.
            (offsets, OFFSET_RATE, 0.0),
        ]
        return [
            {"params": params, "lr": learning_rate * rate, "weight_decay": decay}
            for params, rate, decay in groups
            if params and rate
        ]


def cross_entropy(
    scores: Tensor, positive: Tensor, shares: Tensor, odds: float
) -> Tensor:
    """Mean over positives plus ``odds`` times the mean over negatives, of each loss.

    Args:
        scores: Logits at equal odds, [n].
        positive: Whether there is a merger, [n].
        shares: Share of all negatives that each window stands for, [n].
        odds: How many windows without a merger there are for each with one.
    """
    logit = scores - math.log(odds)
    found = nn.functional.softplus(-logit[positive]).mean()
    return found + odds * (shares * nn.functional.softplus(logit)).sum()
