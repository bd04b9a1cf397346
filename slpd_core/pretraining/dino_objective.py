"""The objective of stage one, that of DINO (Caron et al., ICCV 2021) with KoLeo, with its gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from slpd_core.ssl import losses
from slpd_core.ssl.losses import LogitFactors
from slpd_core.ssl.student_teacher import StudentTeacher, autocast


@dataclass(frozen=True)
class DinoObjective:
    """The objective of DINO, with KoLeo as in DINOv2.

    Attributes:
        student_temperature: τ_s.
        teacher_temperature: τ_t.
        center_momentum: Of the moving average.
        koleo_weight: Of KoLeo, which keeps the tokens of different patches apart.
    """

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9
    koleo_weight: float = 0.1

    def backward(self, networks: StudentTeacher, batch: list[Tensor]) -> dict[str, Tensor]:
        """Compute the loss of a batch, backpropagate into the student and update the center.

        Args:
            networks: Student and teacher; gradients are added to the student's.
            batch: Global crops (G, B, 3, g, g), local crops (n, B, 3, l, l).

        Returns:
            `loss`, `loss_self` (DINO, eq. 3), `koleo` and `teacher_entropy`, each ().
        """
        student, teacher, (G, B) = networks.student, networks.teacher, batch[0].shape[:2]
        views = [view.flatten(0, 1) for view in batch]
        with autocast(networks.dtype, networks.device):
            z = torch.cat([student.encoder(view) for view in views])
            crops = student.head.bottleneck(z)
            with torch.no_grad():
                targets = teacher.head.bottleneck(teacher.encoder(views[0]))
        crops, targets = (rows.view(-1, B, rows.shape[1]).transpose(0, 1) for rows in (crops, targets))
        exists, last_layer = targets.new_ones(B, G), teacher.head.normalized_weight()
        center = networks.centers["self"].clone()
        networks.centers["self"].copy_(losses.update_center(center, targets, last_layer, exists, self.center_momentum))
        self_loss, _, entropy = losses.chunked_cross_entropy(
            LogitFactors(crops, student.head.normalized_weight(), self.student_temperature),
            LogitFactors(targets, last_layer, self.teacher_temperature),
            center.expand(G, -1),
            losses.cross_view_weights(G, crops.shape[1], crops.device).to(crops).expand(B, -1, -1) / B,
            networks.dtype,
        )
        koleo = losses.koleo_of_crops(z[: G * B], G)
        loss = self_loss + self.koleo_weight * koleo
        networks.scaler.scale(loss).backward()
        metrics = {"loss": loss, "loss_self": self_loss, "koleo": koleo}
        metrics["teacher_entropy"] = losses.masked_mean(entropy, exists)
        return {name: value.detach() for name, value in metrics.items()}
