"""Student and teacher of stage two."""

from slpd_core import config
from slpd_core.dino.head import ProjectionHead
from slpd_core.dino.networks import Network, Networks
from slpd_core.pretraining.region_encoder import RegionEncoder
from slpd_core.runtime import generator

TERMS = ("self", "intra", "inter")


def start_networks(section: config.PretrainRun, token_dim: int, seed: int, device: str) -> Networks:
    """Student and teacher of a run with random weights that depend on the seed alone."""

    def build(drop_path: float) -> Network:
        shape = (token_dim, section.embed_dim, section.depth, section.n_heads, section.global_crop)
        encoder = RegionEncoder(*shape, drop_path)
        return Network(
            encoder, ProjectionHead(section.embed_dim, section.hidden_dim, section.bottleneck_dim, section.out_dim)
        )

    return Networks.start(build, section, TERMS, torch_seed(seed, "weights"), device)


def torch_seed(seed: int, *keys: str | int) -> int:
    return int(generator(seed, "pretrain", *keys).integers(1 << 62))
