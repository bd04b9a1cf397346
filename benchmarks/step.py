"""A step of stage two with all three losses: ours against the reference's on plain networks, and against the floor.

Plainly: attention multiplied out, the last block whole, one log-softmax a pair of a target and a crop, all logits at
once, torch's default kernels and memory, a host sync a step. The networks are the paper's, crops and prototypes random.
The floor is multiplying alone, at this machine's best rate of the run. A batch the plain way has no memory for is
measured at the largest it has, and compared by the region.
"""

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import best_seconds, in_own_process
from slpd_core import config
from slpd_core.pretraining import reference
from slpd_core.pretraining.networks import NetworkParams, build_student_teacher
from slpd_core.pretraining.objective import Batch, SlpdObjective
from slpd_core.runtime import keep_freed_memory
from slpd_core.ssl.cuda_graph import GraphedStep
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.student_teacher import StudentTeacher, apply_schedules, autocast, update_networks

TOKEN_DIM = 384
BATCHES = (64, 256)
PLAIN_AT_MOST = {"cpu": 128, "cuda": 256}
MOST_MB = {"cpu": 6000, "cuda": 12_000}
ROUNDS = {"cpu": 2, "cuda": 10}
MULTIPLIED = ((4096, 192, 768), (4096, 768, 192), (2048, 2048, 2048), (4096, 4096, 4096))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def section_of(batch_size: int, drop_path: float) -> config.PretrainRunConfig:
    """Return the run slpd of the config, without frozen last layer: the first step is measured."""
    from benchmarks.slides import settings

    changes = {"batch_size": batch_size, "drop_path": drop_path, "freeze_last_layer_epochs": 0, "warmup_epochs": 0}
    return settings().pretrain.run("slpd").model_copy(update=changes)


def start(section: config.PretrainRunConfig, device: str) -> tuple[StudentTeacher, Batch]:
    """Build networks whose teacher is no copy of the student, and a batch whose tenth region has no prototype."""
    networks = build_student_teacher(TOKEN_DIM, section.extract(NetworkParams), seed=1, device=device)
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    with torch.no_grad():
        for parameter in networks.teacher.parameters():
            parameter.add_(0.01 * normal(*parameter.shape))
    networks.centers = {term: 0.02 * normal(section.out_dim) for term in networks.centers}
    B = section.batch_size
    crops = ((section.n_global_crops, section.global_crop_size), (section.n_local_crops, section.local_crop_size))
    views = [normal(n, B, side, side, TOKEN_DIM) for n, side in crops]
    has = (torch.arange(B, device=device) % 10 > 0).float()[:, None]
    return networks, Batch(views, {term: (normal(B, 1, section.embed_dim), has) for term in ("intra", "inter")})


def plain_encoder(encoder: Any, tokens: Tensor) -> Tensor:
    """Embed crops by a region encoder in plain torch."""
    B, side, _, _ = tokens.shape
    x = torch.cat([encoder.cls_token.expand(B, -1, -1), encoder.phi(tokens.flatten(1, 2))], 1)
    x = x + encoder.interpolate_positions(side, side)
    for block in encoder.blocks:
        x = x + block._drop(plain_attention(block.attn, block.norm1(x)))
        x = x + block._drop(block.mlp(block.norm2(x)))
    embedding: Tensor = encoder.norm(x)[:, 0]
    return embedding


def plain_attention(attention: Any, x: Tensor) -> Tensor:
    B, T, D = x.shape
    heads = attention.qkv(x).reshape(B, T, 3, attention.n_heads, D // attention.n_heads)
    q, k, v = heads.permute(2, 0, 3, 1, 4)
    weights = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1)
    out: Tensor = attention.proj((weights @ v).transpose(1, 2).reshape(B, T, D))
    return out


def plain_head(head: Any, x: Tensor) -> Tensor:
    return F.linear(F.normalize(head.mlp(x), dim=-1), F.normalize(head.last_layer, dim=-1))


def plain_loss(networks: StudentTeacher, batch: Batch, section: config.PretrainRunConfig, dtype: torch.dtype) -> Tensor:
    """Return the loss of a batch, pair by pair, as `pretraining.reference` has it."""
    student, teacher, G = networks.student, networks.teacher, section.n_global_crops
    with autocast(dtype, batch.views[0].device):
        embedded = [plain_encoder(student.encoder, view.flatten(0, 1)) for view in batch.views]
        logits = plain_head(student.head, torch.cat(embedded))
        with torch.no_grad():
            of_terms = {"self": plain_head(teacher.head, plain_encoder(teacher.encoder, batch.views[0].flatten(0, 1)))}
            for term, (values, _) in batch.targets.items():
                of_terms[term] = plain_head(teacher.head, values[:, 0])
    a = {
        term: F.softmax((rows - networks.centers[term]) / section.teacher_temperature, dim=-1)
        for term, rows in of_terms.items()
    }
    crops = (logits / section.student_temperature).chunk(sum(len(view) for view in batch.views))
    total = reference.self_loss(a["self"].chunk(G), crops).mean()
    for term, (_, weights) in batch.targets.items():  # K = 1: eq. 4 is eq. 2 of another prototype
        total = total + reference.intra_loss(a[term], crops)[weights[:, 0] > 0].mean()
    with torch.no_grad():
        for term, rows in of_terms.items():
            counted = rows if term == "self" else rows[batch.targets[term][1][:, 0] > 0]
            networks.centers[term] = 0.9 * networks.centers[term] + 0.1 * counted.float().mean(0)
    return total


def gradients(networks: StudentTeacher) -> Tensor:
    """Return all gradients of the student as one vector."""
    return torch.cat([p.grad.flatten() for p in networks.student.parameters() if p.grad is not None])


def losses_of(way: str, precision: str, batch_size: int, device: str) -> tuple[float, Tensor]:
    """Compute the loss and the gradients of the first step, without drop path."""
    section = section_of(batch_size, drop_path=0.0)
    networks, batch = start(section, device)
    networks.dtype = DTYPES[precision]
    if way == "plain":
        loss = plain_loss(networks, batch, section, DTYPES[precision])
        loss.backward()
    else:
        loss = section.extract(SlpdObjective).backward(networks, batch)["loss"]
    return loss.item(), gradients(networks).cpu()


def timed(way: str, precision: str, batch_size: int, device: str) -> tuple[float, float]:
    """Measure the least seconds of a step, and the peak MB of the GPU's tensors, or of this process on a CPU."""
    torch.set_num_threads(os.cpu_count() or 1)
    if way == "ours":
        keep_freed_memory()  # as our jobs do
    section = section_of(batch_size, drop_path=0.1)
    networks, batch = start(section, device)
    networks.dtype = DTYPES[precision]
    recipe, objective = section.extract(Recipe), section.extract(SlpdObjective)
    parameters = [*networks.student.parameters()]
    backward: GraphedStep[Batch] = GraphedStep(lambda batch: objective.backward(networks, batch), parameters, device)

    def step() -> None:
        momentum = apply_schedules(networks, recipe, 0, 100, batch_size)["teacher_momentum"]
        if way == "plain":
            loss = plain_loss(networks, batch, section, DTYPES[precision])
            loss.item()
            loss.backward()
        else:
            backward(batch)
        update_networks(networks, recipe.clip_norm, momentum)
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    seconds = best_seconds({"it": step}, ROUNDS[device])["it"]
    return seconds, torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0


def operations(section: config.PretrainRunConfig) -> float:
    """Count floating-point operations per region: networks and last layers, the student's thrice, for its gradients."""
    D, layers = section.embed_dim, 12 * section.embed_dim**2

    def encoder(side: int) -> float:
        T = side**2 + 1
        whole = 2 * T * layers + 4 * T**2 * D
        last = 2 * T * 2 * D**2 + 2 * (layers - 2 * D**2) + 4 * T * D  # of which [CLS] alone is asked for
        return 2 * (T - 1) * TOKEN_DIM * D + (section.depth - 1) * whole + last

    hidden, inner = section.hidden_dim, section.bottleneck_dim
    head = 2 * (D * hidden + hidden**2 + hidden * inner + inner * section.out_dim)
    crops = section.n_global_crops + section.n_local_crops
    of_globals = section.n_global_crops * encoder(section.global_crop_size)
    student = of_globals + section.n_local_crops * encoder(section.local_crop_size) + crops * head
    return 3 * student + of_globals + (section.n_global_crops + 2) * head


def multiplying(device: str) -> dict[str, float]:
    """Measure the best rate of matmul per precision, operations per second."""
    rates = {}
    for precision, dtype in DTYPES.items():
        ways, work = {}, {}
        for rows, inside, outside in MULTIPLIED:
            a, b = (torch.randn(*shape, device=device).to(dtype) for shape in ((rows, inside), (inside, outside)))

            def multiply(a: Tensor = a, b: Tensor = b) -> None:
                for _ in range(8):
                    a @ b
                if device == "cuda":
                    torch.cuda.synchronize()

            ways[rows, inside, outside], work[rows, inside, outside] = multiply, 8 * 2.0 * rows * inside * outside
        seconds = best_seconds(ways)
        rates[precision] = max(work[shape] / spent for shape, spent in seconds.items())
    return rates


def agreement(device: str) -> None:
    """Print how far loss and gradients of the first step are from those of plain torch in fp32."""
    expected, reference = in_own_process(losses_of, "plain", "fp32", BATCHES[0], device)[0]
    print(f"Against the plain way in fp32, batch {BATCHES[0]}, {device}\n\n| way | loss off by | gradients off by |")
    print("|---|---:|---:|")
    for way, precision in (("plain", "bf16"), ("ours", "fp32"), ("ours", "bf16")):
        loss, gradients = in_own_process(losses_of, way, precision, BATCHES[0], device)[0]
        away = (gradients - reference).norm() / reference.norm()
        print(f"| {way}, {precision} | {abs(loss / expected - 1):.1e} | {away:.1e} |")
    print(flush=True)


def speed(device: str) -> None:
    """Print the table of a device; each way runs in a new process."""
    before, per_region = multiplying(device), operations(section_of(64, 0.0))
    rows = []
    for precision in DTYPES:
        for batch_size in BATCHES:
            spent = {}
            for way, size in (("plain", min(batch_size, PLAIN_AT_MOST[device])), ("ours", batch_size)):
                (seconds, on_gpu), cost = in_own_process(timed, way, precision, size, device)
                spent[way] = seconds / size
                rows.append((precision, way, size, spent[way], spent["plain"], on_gpu or cost.peak_mb))
    rates = {precision: max(rate, before[precision]) for precision, rate in multiplying(device).items()}
    print(
        f"A step on {device}, {per_region / 1e9:.1f} GFLOP a region, {torch.get_num_threads()} threads; multiplying: "
    )
    print(", ".join(f"{precision} {rate / 1e9:.0f} GFLOP/s" for precision, rate in rates.items()) + "\n")
    print("| precision | way | batch | ms a region | ratio | of the multiplying peak | peak memory, MB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for precision, way, size, seconds, plain, peak in rows:
        over = f" (more than {MOST_MB[device]})" if way == "ours" and peak > MOST_MB[device] else ""
        print(
            f"| {precision} | {way} | {size} | {seconds * 1e3:.1f} | {plain / seconds:.2f} | "
            f"{per_region / seconds / rates[precision]:.0%} | {peak:.0f}{over} |"
        )
    print(flush=True)


def main() -> None:
    """Print the tables of each device there is."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        agreement(device)
        speed(device)
