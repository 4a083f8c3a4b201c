import typing

import matplotlib.image
import pytest

from wekws.bin import plot_schedules
from wekws.distill.schedule import Shape


def test_the_picture_holds_every_shape_and_the_temperature(tmp_path):
    path = tmp_path / "alpha_schedule_comparison.png"
    assert plot_schedules.main(["--out", str(path)]) == 0
    assert matplotlib.image.imread(path).std() > 0.01
    assert set(plot_schedules.ALPHA) == set(typing.get_args(Shape))


def test_what_is_drawn_is_what_training_uses():
    assert plot_schedules.ALPHA["cosine_growth"].at(0.5) == pytest.approx(0.5)
    assert plot_schedules.TEMPERATURE["cosine 6 to 3"].at(1.0) == pytest.approx(3.0)
