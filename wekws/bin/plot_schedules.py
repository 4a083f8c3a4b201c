"""Draw every shape that a loss weight or a temperature can take over training."""

import argparse
import sys
from collections.abc import Sequence

from wekws.distill.methods import DistillConfig
from wekws.distill.schedule import Schedule
from wekws.log import run
from wekws.plot.schedules import ScheduleCurve, plot_schedules

PROGRESS = [i / 200 for i in range(201)]
ALPHA = {
    "constant": Schedule(shape="constant", start=0.7),
    "linear": Schedule(shape="linear", start=0.0, end=1.0),
    "cosine_descent": Schedule(shape="cosine_descent"),
    "cosine_growth": Schedule(shape="cosine_growth"),
    "cosine_vshape": Schedule(shape="cosine_vshape"),
    "cosine_^shape": Schedule(shape="cosine_^shape"),
}
NOTES = {
    "constant": "the same weights throughout",
    "linear": "here from distillation to CTC",
    "cosine_descent": "CTC first, distillation later",
    "cosine_growth": "distillation first, CTC later",
    "cosine_vshape": "CTC, distillation halfway, CTC",
    "cosine_^shape": "distillation, CTC halfway, distillation",
}
TEMPERATURE = {
    "fixed": Schedule(shape="constant", start=2.0),
    "linear 6 to 3": Schedule(shape="linear", start=6.0, end=3.0),
    "cosine 6 to 3": Schedule(shape="cosine_descent", start=6.0, end=3.0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", default="alpha_schedule_comparison.png",
        help="figure to write: .png, .pdf or .svg [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--alpha_floor", type=float, default=DistillConfig.alpha_floor,
        help="lowest alpha, so that CTC is never off [%(default)s]",
    )  # fmt: skip
    args = parser.parse_args(argv)
    alphas = [
        ScheduleCurve(name, NOTES[name], [max(args.alpha_floor, s.at(p)) for p in PROGRESS])
        for name, s in ALPHA.items()
    ]
    temperatures = [
        ScheduleCurve(name, "", [s.at(p) for p in PROGRESS]) for name, s in TEMPERATURE.items()
    ]
    plot_schedules(
        args.out,
        progress=PROGRESS,
        alphas=alphas,
        temperatures=temperatures,
        alpha_floor=args.alpha_floor,
    )
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
