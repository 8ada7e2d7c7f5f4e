"""Lightning module of the training: network, losses and optimizer."""

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

SLIDE_STEP = 7
"""Windows by which a further detector shifts from one slide of a batch to the next."""

OFFSET_RATE = 10.0
"""Learning-rate factor for biases that are in units of the score."""

GEOMETRY = Geometry()


class TrainingModule(lightning.LightningModule):
    """Trains a network to detect mergers in windows, and to time them.

    Args:
        model: Network to train, a key of ``models.MODELS``.
        hyperparameters: The network's hyper-parameters, apart from the geometry.
        learning_rate: Peak learning rate of the one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        warmup_share: Fraction of the steps over which the learning rate rises.
        timing_weight: Weight of the merger-time loss, for networks that estimate the
            time.
        growth_weight: Weight of a loss that makes loud mergers' scores grow with SNR:
            softplus(growth_slope * SNR - score) from growth_min_snr on. Without it a
            score of 10 costs as little as one of 50, and loud mergers, which resemble
            loud glitches, can score below fainter ones.
        growth_slope: Target score per unit of network SNR in the growth loss.
        growth_min_snr: Smallest network SNR to which the growth loss applies.
        slides: Timeslides in which each batch's windows without a merger are scored,
            for networks with a single-detector frontend; 0 scores them in zero-lag.
        disturbed_shares: Loss weights of three classes of windows without a merger,
            as fractions of all such windows: a glitch in one detector, a merger in
            one detector only, and disturbances in several detectors. Used with
            slides.
        low_rate_weight: Weight of a second cross-entropy with ``low_rate_odds``
            windows without a merger for each with one. It trains for the low
            false-alarm rates of a search.
        low_rate_odds: Odds of the second cross-entropy, see ``low_rate_weight``.
        frontend_rate: Learning-rate factor of a learned frontend; 0 freezes it.
        filters_rate: Learning-rate factor of matched filters; 0 freezes them.
        initial: Initial weights of a network of matched filters: a checkpoint file, or
            the name of a checkpoint that comes with the project. A ``split``
            checkpoint gives its frontend; a ``matched`` one gives all weights.
        bank: Initial template bank of a network of matched filters, a JSON file. If
            None, the templates of ``initial``, or else the bank that comes with the
            project.
        geometry: Kernel, stride and frame sizes.
        steps: Length of the training in steps, for the learning-rate schedule.

    Raises:
        ConfigurationError: A setting is invalid for this model.
        ModelError: ``initial`` is not a checkpoint that this model can start from.
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
                    f"model.{name}: expected null for the model {model}, which has no "
                    f"templates, found {value}"
                )
        if slides and not has_slides(self.network):
            raise ConfigurationError(
                f"model.slides: expected 0 for the model {model}, which has no "
                f"single-detector frontend, found {slides}"
            )
        if slides < 0 or sum(self.disturbed_shares) >= 1:
            raise ConfigurationError(
                "model: expected slides of 0 or more and disturbed_shares with a sum "
                f"below 1, found {slides} and {self.disturbed_shares}"
            )
        if isinstance(self.network, MatchedNetwork):
            self._initialise(self.network, initial, bank)
        # Lightning trains in the mode that the module has when fit starts.
        self.train()

    @staticmethod
    def _initialise(
        network: MatchedNetwork, initial: str | None, bank: str | None
    ) -> None:
        """Set a network's weights and templates before the first step."""
        if initial is not None:
            path = find_checkpoint(initial)
            source, details = load_checkpoint(path)
            if isinstance(source, MatchedNetwork):
                check_same(path, details, {"geometry": network.geometry.to_json()})
                if source.hyperparameters != network.hyperparameters:
                    raise ModelError(
                        f"{path}: expected a checkpoint with the hyperparameters "
                        f"{network.hyperparameters}, found {source.hyperparameters}"
                    )
                if bank is not None:
                    raise ConfigurationError(
                        f"model.bank: expected null, since {path} has templates, found "
                        f"{bank}"
                    )
                network.load_state_dict(source.state_dict())
                return
            if not isinstance(source, Network):
                raise ModelError(
                    f"{path}: expected a checkpoint of the model split or matched, "
                    f"found {details['model']}"
                )
            network.set_learned(source)
        network.set_bank(shipped_bank() if bank is None else read_bank(bank))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen frontend stays in evaluation mode.

        Its BatchNorm statistics are then frozen as well.
        """
        super().train(mode)
        frontend = getattr(self.network, "frontend", None)
        if frontend is not None and not self.frontend_rate:
            frontend.eval()
        return self

    def training_step(self, batch: Batch | FrameBatch, index: int) -> Tensor:
        """Return and log the loss of one batch of windows or of stock frames."""
        total, metrics = self.losses(batch)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
        self.log("loss", metrics.pop("loss"), prog_bar=True)
        self.log_dict(metrics)
        return total

    def losses(self, batch: Batch | FrameBatch) -> tuple[Tensor, dict[str, Any]]:
        """Compute the total loss of a batch, and its terms.

        Returns:
            The total loss, and metrics for the log: ``loss``, the cross-entropy at
            equal odds; ``found`` and ``false``, the share of windows with and without
            a merger that score above 0; and the unweighted further terms
            (``low_rate_loss``, ``growth``, ``timing``) where they are used.
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
        metrics: dict[str, Any] = {
            "loss": loss,
            "found": (scores[positive] > 0).float().mean(),
            "false": (scores[~positive] > 0).float().mean(),
        }
        total = loss
        if self.low_rate_weight:
            rare = cross_entropy(scores, positive, shares, self.low_rate_odds) / 2
            metrics["low_rate_loss"] = rare
            total = total + self.low_rate_weight * rare
        if self.growth_weight:
            shortfall = nn.functional.softplus(self.growth_slope * snrs - scores)
            shortfall = torch.where(snrs >= self.growth_min_snr, shortfall, 0)
            # The mean over the batch at equal odds, independent of the slides.
            growth = shortfall.sum() / (2 * positive.sum())
            metrics["growth"] = growth
            total = total + self.growth_weight * growth
        if salience is not None:
            assert isinstance(network, Sliding)
            frame = mergers - network.peak_size
            frame = (frame / network.geometry.frame_size).round().long()
            timing = nn.functional.cross_entropy(
                salience.float().squeeze(2), frame.clamp(0, salience.shape[1] - 1)
            )
            metrics["timing"] = timing
            total = total + self.timing_weight * timing
        return total, metrics

    def features(self, batch: Batch | FrameBatch) -> Tensor:
        """Each detector's frames, before they are summed over detectors.

        Returns:
            [batch, ifos, channels, frames].
        """
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
        """Sum the detectors' frames: windows with a merger in zero-lag, others slid.

        Args:
            features: Each detector's frames, [batch, ifos, channels, frames].
            positive: Whether the window has a merger, [batch].
            disturbances: Kind of disturbance by detector, see ``Batch``, [batch, ifos].

        Returns:
            Sums, [positives + slides * negatives, channels, frames], and each sum's
            share in the loss of windows without a merger; 0 for windows with one.
        """
        negatives, kinds = features[~positive], disturbances[~positive]
        totals, slid_kinds = [features[positive].sum(1)], []
        for slide in range(self.slides):
            total, rolled = negatives[:, 0], [kinds[:, 0]]
            for i in range(1, negatives.shape[1]):
                shift = i * slide * SLIDE_STEP
                total = total + negatives[:, i].roll(shift, 0)
                rolled.append(kinds[:, i].roll(shift, 0))
            totals.append(total)
            slid_kinds.append(torch.stack(rolled, 1))
        kind = torch.cat(slid_kinds)
        disturbed = (kind > 0).sum(1)
        classes = torch.where(disturbed > 1, 3, kind.amax(1))
        shares = torch.zeros(len(kind), device=features.device)
        for number, share in enumerate(
            (1 - sum(self.disturbed_shares), *self.disturbed_shares)
        ):
            inside = classes == number
            shares[inside] = share / inside.sum().clamp(min=1)
        zeros = torch.zeros(int(positive.sum()), device=features.device)
        return torch.cat(totals), torch.cat([zeros, shares])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop the training before a non-finite gradient reaches the weights.

        Raises:
            ModelError: The gradient is not finite.
        """
        gradients = [x.grad for x in self.parameters() if x.grad is not None]
        # Gradients are averaged over processes already, so that all stop together.
        if not torch.isfinite(nn.utils.get_total_norm(gradients)):
            raise ModelError(
                f"step {self.global_step}: expected finite gradients, found NaN or "
                "infinity. The last checkpoint is intact. Check the strain, or lower "
                f"model.learning_rate ({self.learning_rate:g})"
            )

    def validation_step(
        self, validation: "DeployedValidation | None", index: int
    ) -> None:
        """Log the deployed validation's metrics, computed in single precision.

        Args:
            validation: The validation in the first process, None in all others.
            index: Index of the batch, always 0.
        """
        metrics: dict[str, float] = {}
        if validation is not None:
            with torch.autocast(self.device.type, enabled=False):
                metrics = validation.evaluate(self.network)
        # All processes need the metrics, to agree on the best weights.
        metrics = self.trainer.strategy.broadcast(metrics)
        several = self.trainer.world_size > 1
        self.log_dict(metrics, batch_size=1, prog_bar=True, sync_dist=several)

    def configure_optimizers(
        self,
    ) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW with a one-cycle learning-rate schedule."""
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
        """Parameter groups for the optimizer, with learning rate and weight decay.

        Frontends and filters with a rate of 0 are frozen and left out.
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
            # In units of the score; decay would pull the thresholds to 0.
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
    """Binary cross-entropy of scores in a mixture with ``odds`` negatives a positive.

    The loss is the mean over positives plus ``odds`` times the weighted mean over
    negatives, nat.

    Args:
        scores: Logits at equal odds, [n].
        positive: Whether the window has a merger, [n].
        shares: Weight of each window among the negatives, with the sum 1; 0 for
            positives, [n].
        odds: Windows without a merger for each window with one.
    """
    logit = scores - math.log(odds)
    positive_loss = nn.functional.softplus(-logit[positive]).mean()
    return positive_loss + odds * (shares * nn.functional.softplus(logit)).sum()
