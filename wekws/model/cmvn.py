"""Global mean and variance normalisation (CMVN): the layer, and readers of its two file formats."""

import json
import logging
import os
import re

import torch
from torch import Tensor, nn

from wekws.errors import DataError
from wekws.files import atomic_path

logger = logging.getLogger(__name__)

# Names in the state dict of a ``KwsModel``, which are WeKWS's.
CMVN_KEYS = ("global_cmvn.mean", "global_cmvn.istd")

# Relative to the squared mean. A smaller variance is the rounding error of E[x^2] - E[x]^2.
SMALLEST_VARIANCE = 1e-8


class GlobalCMVN(nn.Module):
    """``(x - mean) * istd``; both are buffers: saved in checkpoints, never trained."""

    mean: Tensor
    istd: Tensor

    def __init__(self, mean: Tensor, istd: Tensor, norm_var: bool = True) -> None:
        """mean, istd: (D,). norm_var: False subtracts the mean only."""
        super().__init__()
        if mean.shape != istd.shape or mean.dim() != 1:
            raise ValueError(f"mean {tuple(mean.shape)}, istd {tuple(istd.shape)}; expected (D,)")
        self.norm_var = norm_var
        self.register_buffer("mean", mean.float())
        self.register_buffer("istd", istd.float())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., D) features."""
        centred = x - self.mean
        return centred.mul_(self.istd) if self.norm_var else centred


def load_cmvn(
    path: str | os.PathLike[str],
    input_dim: int,
    norm_var: bool = True,
    *,
    num_bins: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Read statistics for ``input_dim`` features; the content of the file decides the format.

    A vector shorter than ``input_dim`` is repeated for every spliced frame (80 x 5 for 400).
    num_bins: features of one frame, as many as a repeated vector must have; None: any divisor of
    ``input_dim``.
    Returns: mean and inverse standard deviation, (input_dim,) float32; the latter is ones without
    ``norm_var``.
    Raises: DataError if the file is missing, has neither format, does not fit ``input_dim``, or
    cannot be the statistics of any features.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected CMVN statistics") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text; expected JSON or a Kaldi nnet in text") from None
    parse = _parse_json if text.lstrip().startswith("{") else _parse_kaldi
    mean, istd = parse(text, path)
    if len(mean) == 0 or input_dim % len(mean):
        raise DataError(
            f"{path}: holds {len(mean)} values; expected {input_dim}, or a divisor of it"
        )
    if num_bins is not None and len(mean) not in (num_bins, input_dim):
        raise DataError(
            f"{path}: holds {len(mean)} values; expected {num_bins}, one per mel bin, or "
            f"{input_dim}"
        )
    if not (torch.isfinite(mean).all() and torch.isfinite(istd).all()):
        raise DataError(f"{path}: contains values that are not finite; compute the file again")
    if not norm_var:
        istd = torch.ones_like(istd)
    num_copies = input_dim // len(mean)
    return mean.float().repeat(num_copies), istd.float().repeat(num_copies)


def write_kaldi_cmvn(path: str | os.PathLike[str], mean: Tensor, istd: Tensor) -> None:
    """Write statistics as a Kaldi nnet in text, exact to the last bit of a float32.

    mean, istd: (D,) mean and inverse standard deviation.
    WeKWS reads this form if the file's name contains ``kaldi``: lines of three words, each followed
    by a line with a vector; one splice offset, since the vectors are as long as the input.
    """
    size = len(mean)
    vectors = {"AddShift": -mean, "Rescale": istd}
    lines = ["<Nnet>", f"<Splice> {size} {size}", "[ 0 ]", "<!EndOfComponent>"]
    for name, vector in vectors.items():
        values = " ".join(f"{value:.9g}" for value in vector.tolist())
        lines += [f"<{name}> {size} {size}", f"<LearnRateCoef> 0 [ {values} ]", "<!EndOfComponent>"]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*lines, "</Nnet>"]) + "\n", encoding="utf-8")


def _parse_json(text: str, path: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Parse WeKWS's sums: ``mean_stat`` (x), ``var_stat`` (x squared) and ``frame_num``."""
    try:
        content = json.loads(text)
        sums = torch.tensor(content["mean_stat"], dtype=torch.float64)
        squares = torch.tensor(content["var_stat"], dtype=torch.float64)
        num_frames = float(content["frame_num"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not CMVN statistics in JSON ({error!r}); expected mean_stat, var_stat "
            "(lists of numbers) and frame_num"
        ) from None
    if sums.shape != squares.shape or sums.dim() != 1 or not num_frames > 0:
        raise DataError(
            f"{path}: mean_stat has {tuple(sums.shape)} and var_stat {tuple(squares.shape)} values "
            f"over {num_frames:g} frames; expected two lists of one length and frames"
        )
    mean = sums / num_frames
    variance = squares / num_frames - mean**2
    # Rounding makes a variance of 0 negative, but by no more than this.
    if (variance < -1e-6 * mean.square().clamp(min=1.0)).any():
        raise DataError(f"{path}: negative variances; compute the file again (compute_cmvn)")
    # WeKWS clips such a variance at 1e-20, which would amplify the feature by 1e10.
    is_constant = variance <= SMALLEST_VARIANCE * mean.square().clamp(min=1e-12)
    if is_constant.all():
        raise DataError(
            f"{path}: every feature is constant (mean of the first {mean[0]:g}); expected the "
            "statistics of speech: compute the file again (compute_cmvn)"
        )
    if is_constant.any():
        bins = is_constant.nonzero().flatten().tolist()
        logger.warning("%s: features %s are constant; their scale is not changed", path, bins)
    return mean, torch.where(is_constant, 1.0, variance).rsqrt()


def _parse_kaldi(text: str, path: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Parse a Kaldi nnet: ``<AddShift>`` (minus the mean), ``<Rescale>`` (inverse deviation)."""
    shift, scale = (_kaldi_vector(text, name, path) for name in ("AddShift", "Rescale"))
    if shift.shape != scale.shape:
        raise DataError(
            f"{path}: <AddShift> holds {len(shift)} values and <Rescale> {len(scale)}; "
            "expected equal numbers"
        )
    return -shift, scale


def _kaldi_vector(text: str, name: str, path: str | os.PathLike[str]) -> Tensor:
    found = re.search(rf"<{name}>\s+(\d+)\s+\d+(?:\s+<LearnRateCoef>\s+\S+)?\s*\[([^\]]*)\]", text)
    if found is None:
        raise DataError(
            f"{path}: neither JSON nor a Kaldi nnet in text; expected `<{name}> 80 80 [ ... ]`"
        )
    try:
        values = torch.tensor([float(item) for item in found[2].split()], dtype=torch.float64)
    except ValueError as error:
        raise DataError(f"{path}: <{name}>: {error}; expected numbers") from None
    if len(values) != int(found[1]):
        raise DataError(f"{path}: <{name}> holds {len(values)} values; its header says {found[1]}")
    return values
