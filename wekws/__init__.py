"""Keyword-spotting distillation: FSMN-CTC teacher to student, scored and proven."""

__version__ = "0.1.0"
