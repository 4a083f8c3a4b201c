import torch
import torch.nn.functional as F
from small_models import peaked_logits, random_logits
from test_kd import EVERY_KD

from wekws.distill.consistency import consistency_loss
from wekws.distill.ctc import smoothing_loss
from wekws.distill.frames import choose_frames
from wekws.distill.guide import guide_loss
from wekws.distill.kd import kd_loss


def test_frames_are_chosen_at_the_teachers_peaks():
    logits = peaked_logits([0, 0, 1, 0, 0, 0, 2, 3])
    lengths = torch.tensor([7])
    chosen = {
        (choice, k): choose_frames(logits, lengths, choice, k)[0].int().tolist()
        for choice, k in (("all", 1), ("non_blank", 1), ("widened", 1), ("widened", 2))
    }
    assert chosen == {
        ("all", 1): [1, 1, 1, 1, 1, 1, 1, 0],
        ("non_blank", 1): [0, 0, 1, 0, 0, 0, 1, 0],
        ("widened", 1): [0, 1, 1, 1, 0, 1, 1, 0],
        ("widened", 2): [1, 1, 1, 1, 1, 1, 1, 0],
    }


def every_term(student, teacher, lengths):
    kd = [kd_loss(student, teacher, lengths, temperature=2.0, config=c) for c in EVERY_KD]
    smoothing = [smoothing_loss(student, lengths, over) for over in ("all", "tokens")]
    both = [f(student, teacher, lengths) for f in (guide_loss, consistency_loss)]
    return torch.stack([*kd, *both, *smoothing])


def test_padding_changes_no_frame_wise_term():
    student, teacher, lengths = random_logits(0), random_logits(1), torch.tensor([6, 3])
    before = every_term(student, teacher, lengths)
    student[1, 3:], teacher[1, 3:] = 50.0, torch.tensor([0.0, 0.0, 90.0, 0.0, 0.0])
    wider = [F.pad(x, (0, 0, 0, 4), value=7.0) for x in (student, teacher)]
    torch.testing.assert_close(every_term(student, teacher, lengths), before)
    torch.testing.assert_close(every_term(*wider, lengths), before)
