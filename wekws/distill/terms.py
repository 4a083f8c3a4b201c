"""Loss terms. Axes: B batch, T frames, V vocabulary, L label length.

Every term returns its unweighted value; the objective alone applies weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def valid_frames(lengths: Tensor, num_frames: int) -> Tensor:
    """Return a (B, T) mask that is True on the frames before each length."""
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def ctc_loss(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, blank: int = 0
) -> Tensor:
    """Return the CTC negative log-likelihood summed over the utterances of the batch, in nats.

    logits: (B, T, V), unnormalised. lengths: (B,) valid frames. labels: (B, L), padded with
    anything. label_lengths: (B,); 0 is an utterance without speech, all blank.
    Every utterance must be feasible (the data set leaves out those that are not), so that an
    infinite loss is a fault and not masked.
    Source: Graves et al. 2006, "Connectionist temporal classification", eq. 4 and 8.
    """
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    return F.ctc_loss(log_probs, labels, lengths, label_lengths, blank=blank, reduction="sum")


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, lengths: Tensor, *, temperature: float
) -> Tensor:
    """Return KL(teacher || student) summed over the valid frames, times temperature squared.

    student_logits, teacher_logits: (B, T, V), unnormalised.
    lengths: (B,) valid frames; later frames are padding and weigh zero.
    Summed over an utterance's frames it has the scale of CTC, which is such a sum too; a mean
    per frame is some forty times too light beside it.
    Raises: ValueError if shapes differ or no frame is valid.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {tuple(student_logits.shape)} and teacher logits "
            f"{tuple(teacher_logits.shape)} differ; expected one frame rate and one vocabulary"
        )
    mask = valid_frames(lengths, student_logits.shape[1])
    if not mask.any():
        raise ValueError("no frame is valid: every length is 0")
    student = (student_logits[mask].float() / temperature).log_softmax(dim=-1)
    teacher = (teacher_logits[mask].float() / temperature).log_softmax(dim=-1)
    # Targets in log space: a teacher probability of 0 gives 0, never 0 * log 0.
    return F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2
