"""Keyword-spotting distillation: FSMN-CTC teacher to student, scored and proven."""

import os

# Threads that wait sleep instead of spinning; OpenMP reads this once, when torch is imported.
# benchmarks/train_step.py --num_threads 2 on two cores with other work on them took 37 s of wall
# time with OMP_WAIT_POLICY=ACTIVE and 12 s with PASSIVE, and a quarter of the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
