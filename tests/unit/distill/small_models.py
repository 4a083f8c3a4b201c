"""Small members of the family for the tests of transplants."""

import torch

from wekws.distill.transplant import Sample
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel, ModelConfig

TEACHER = {
    "input_affine_dim": 6,
    "num_layers": 3,
    "linear_dim": 8,
    "proj_dim": 5,
    "left_order": 4,
    "right_order": 2,
    "output_affine_dim": 6,
}
STUDENT = {
    "input_affine_dim": 4,
    "num_layers": 2,
    "linear_dim": 7,
    "proj_dim": 3,
    "left_order": 2,
    "right_order": 1,
    "output_affine_dim": 6,
}
MERGED = {**STUDENT, "output_affine_dim": 0}


def model(seed, sizes, output_dim=3, input_dim=10, has_cmvn=True, **changes):
    torch.manual_seed(seed)
    backbone = FSMNConfig(**{**sizes, **changes})
    config = ModelConfig(input_dim=input_dim, output_dim=output_dim, backbone=backbone)
    cmvn = (torch.randn(input_dim), torch.rand(input_dim) + 1) if has_cmvn else None
    return KwsModel(config, cmvn)


def loud_model(seed, sizes, **changes):
    """A model whose layers neither die out nor explode, so that errors can be compared."""
    made = model(seed, sizes, **changes)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if "conv" not in name and tensor.dim() > 1:
                tensor.mul_(2.0)
    return made


def sample_of(teacher, num=40, num_frames=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    feats = 2.0 * torch.randn(num, num_frames, 10, generator=generator) + 0.5
    lengths = torch.randint(1, num_frames + 1, (num,), generator=generator)
    return Sample.of(teacher, [(feats, lengths)])
