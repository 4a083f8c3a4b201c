"""Small models, and objectives and inputs for them."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from wekws.dataset.batch import Embeddings
from wekws.dataset.embeddings import EmbeddingSpace
from wekws.dataset.label_set import LabelSet
from wekws.dataset.vocabulary import Tokenizer, Vocabulary
from wekws.distill.method import LossInputs, LossTargets
from wekws.distill.methods import MethodSections, build_objective
from wekws.distill.taps import ModelOutputs, StepOutputs, forward_tapped
from wekws.distill.transplant import Sample
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig

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
TINY = {
    "input_affine_dim": 8,
    "num_layers": 2,
    "linear_dim": 10,
    "proj_dim": 6,
    "left_order": 3,
    "right_order": 1,
    "output_affine_dim": 8,
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


def tiny_model(seed=0, **changes):
    """A model of 4 inputs and 5 outputs, without CMVN."""
    return model(seed, TINY, output_dim=5, input_dim=4, has_cmvn=False, **changes)


def tiny_labels(*keywords):
    """Labels of a tiny model: the letters A, B and C are tokens 2, 3 and 4."""
    vocabulary = Vocabulary(("<blk>", "<filler>", *"ABC"))
    return LabelSet(vocabulary=vocabulary, tokenizer=Tokenizer(), keywords=keywords)


def embedding_space(num_values=4, window_ms=90.0, hop_ms=60.0):
    return EmbeddingSpace(
        window_ms=window_ms,
        hop_ms=hop_ms,
        mean=torch.zeros(num_values),
        deviation=torch.ones(num_values),
    )


def objective_of(
    config,
    ctc=None,
    *,
    keyword=None,
    has_teacher=True,
    plan=None,
    student=None,
    teacher=None,
    embedding_space=None,
):
    """The objective of a student and a teacher, by default two tiny models; the keyword is AB."""
    sections = {"distill_conf": config} | ({} if ctc is None else {"ctc_conf": ctc})
    sections |= {} if keyword is None else {"keyword_conf": keyword}
    if has_teacher:
        teacher = teacher or tiny_model(1)
    return build_objective(
        MethodSections(**sections),
        student or tiny_model(),
        teacher,
        plan,
        tiny_labels("AB"),
        embedding_space=embedding_space,
    )


def outputs_of(objective, student, teacher, x, lengths):
    """Outputs of both models with the inner features that the objective needs."""
    return StepOutputs(
        forward_tapped(student, x, lengths, objective.student_paths),
        forward_tapped(teacher, x, lengths, objective.teacher_paths),
    )


def two_utterances():
    """Input (2, 6, 4) and labels of two utterances, the second with 2 frames of padding."""
    x = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    embeddings = Embeddings(
        values=torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(1)),
        starts=torch.tensor([[-0.5, 1.5], [-0.5, 1.5]]),
        ends=torch.tensor([[2.5, 4.5], [2.5, 4.5]]),
        lengths=torch.tensor([2, 1]),
    )
    targets = LossTargets(
        torch.tensor([6, 4]),
        torch.tensor([[2, 3], [3, 0]]),
        torch.tensor([2, 1]),
        torch.tensor([[True], [False]]),
        torch.arange(2),
        embeddings,
    )
    return x, targets


def inputs_of_pairs(pairs):
    """Loss inputs whose paired layers have the given features."""
    num_frames = len(pairs[0].teacher)
    nothing = ModelOutputs(torch.zeros(1, num_frames, 2))
    one, lengths = torch.ones(1, dtype=torch.long), torch.tensor([num_frames])
    layer_pairs = SimpleNamespace(align=lambda student, teacher: pairs)
    targets = LossTargets(lengths, one[:, None], one)
    return LossInputs(StepOutputs(nothing, nothing), targets, 1.0, layer_pairs)


def random_logits(seed=0, num_frames=6, num_tokens=5):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, num_frames, num_tokens, generator=generator)


def peaked_logits(tokens, num_tokens=4):
    """Logits of one utterance whose best token per frame is given."""
    return 5.0 * F.one_hot(torch.tensor([tokens]), num_tokens).float()
