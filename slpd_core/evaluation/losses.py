"""Losses of the endpoints that are not classes, for networks of one output."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slpd_core.endpoints.cox import risk_set_weights


def cox_loss(risks: Tensor, time: Tensor, event: Tensor, *, ties: str = "efron") -> Tensor:
    """Compute the negative log partial likelihood of a batch of bags, per event (Cox, 1972; Katzman et al., 2018).

    The batch is the risk set, so a bag alone teaches nothing; take all training bags, or 32 and more per step.

    Args:
        risks: One output per bag, (B,).
        time, event: Of the bags, (B,), as in `survival.validated_survival`.
        ties: As in `cox.risk_set_weights`.

    Returns:
        Scalar; 0 without an event.
    """
    weights = torch.from_numpy(risk_set_weights(time.cpu().numpy(), event.cpu().numpy(), ties=ties)).to(risks)
    if not len(weights):
        return risks.sum() * 0
    return ((risks + weights.log()).logsumexp(1) - risks[event.bool()]).mean()


def standardized_loss(
    outputs: Tensor, targets: Tensor, *, mean: float, scale: float, delta: float | None = None
) -> Tensor:
    """Compare outputs with standardized targets by the mean squared error or Huber's loss (1964).

    Args:
        outputs: One per bag, (B,); a prediction is output * scale + mean.
        targets: In their own unit, (B,).
        mean, scale: Of the training targets, as `regression.target_scale` returns them.
        delta: Error in standard deviations above which Huber's loss is linear; None for the squared error.

    Returns:
        Scalar.
    """
    standardized = ((targets - mean) / scale).to(outputs)
    return F.mse_loss(outputs, standardized) if delta is None else F.huber_loss(outputs, standardized, delta=delta)


class OrderedThresholds(nn.Module):
    """Ascending thresholds of one score that divide C ordered classes; they are learned with the network.

    At the start all classes are equally probable at a score of 0.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        start = torch.logit(torch.arange(1, n_classes, dtype=torch.float64) / n_classes)
        self.first = nn.Parameter(start[:1].float())
        self.gaps = nn.Parameter(start.diff().expm1().log().float())

    def forward(self) -> Tensor:
        """Return the thresholds.

        Returns:
            (C - 1,), ascending.
        """
        return torch.cat((self.first, self.first + F.softplus(self.gaps).cumsum(0)))


def ordinal_log_probabilities(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Compute log-probabilities of ordered classes: P(class <= k) = sigmoid(threshold_k - score).

    The model is the cumulative link of McCullagh (1980), with one score and ordered thresholds as in CORAL (Cao et al.,
    2020).

    Args:
        scores: One output per bag, (B,); the higher, the higher the class.
        thresholds: Ascending, (C - 1,).

    Returns:
        (B, C); their exponentials sum to 1.
    """
    below = thresholds - scores[:, None]
    gaps = torch.log(-torch.expm1(-thresholds.diff())).expand(len(scores), -1)
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b))
    return F.pad(F.logsigmoid(below), (0, 1)) + F.pad(F.logsigmoid(-below), (1, 0)) + F.pad(gaps, (1, 1))


def ordinal_loss(scores: Tensor, thresholds: Tensor, ranks: Tensor) -> Tensor:
    """Compute the negative log-likelihood of ordered classes.

    Args:
        scores, thresholds: As in `ordinal_log_probabilities`.
        ranks: Class indices in the order of the classes, int64 (B,).

    Returns:
        Mean over the bags, a scalar.
    """
    return F.nll_loss(ordinal_log_probabilities(scores, thresholds), ranks)
