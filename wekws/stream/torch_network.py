"""The network of a checkpoint on a stream, with torch.

Axes: T frames, D input features, P memory channels, V vocabulary.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.dataset.label_set import LabelSet, require_trained_vocabulary
from wekws.dataset.vocabulary import lexicon_beside
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd
from wekws.model.checkpoint import load_scored_model
from wekws.model.model import KwsModel
from wekws.model.model_conf import config_beside
from wekws.stream.network import NetworkState, SpotterModel, new_keyword
from wekws.stream.threshold_file import read_thresholds

StrPath = str | os.PathLike[str]


class TorchNetwork:
    """A model that runs on a stream; `StreamingNetwork` describes the methods.

    The state holds, for each block, the inputs of its memory that later frames need: (T, P), with
    zeros before the first frame, as in a whole recording.
    """

    def __init__(self, model: KwsModel, front_end: FrontEnd) -> None:
        """Use a model on the CPU, in eval mode.

        Raises: ConfigError if the model takes other frames than the front end makes.
        """
        if model.config.input_dim != front_end.input_dim:
            raise ConfigError(
                f"the model takes {model.config.input_dim} features per frame, the front end makes "
                f"{front_end.input_dim}; is this the configuration of the checkpoint?"
            )
        self.model = model
        self.front_end = front_end
        self.num_tokens = model.config.output_dim

    @property
    def look_ahead(self) -> int:
        """Future input frames that a row depends on."""
        config = self.model.backbone.config
        return config.num_layers * config.right_reach

    def initial_state(self) -> NetworkState:
        """Return the state before the first frame of a stream."""
        config = self.model.backbone.config
        past = (config.left_reach, config.proj_dim)
        return tuple(np.zeros(past, np.float32) for _ in self.model.backbone.blocks)

    def step(self, frames: np.ndarray, state: NetworkState) -> tuple[np.ndarray, NetworkState]:
        """Process the next frames (T, D) of a stream."""
        return self._run(frames, state, num_padding=0)

    def flush(self, state: NetworkState) -> np.ndarray:
        """Return the rows that the end of the stream completes."""
        config = self.model.backbone.config
        empty = np.zeros((0, self.front_end.input_dim), np.float32)
        return self._run(empty, state, num_padding=config.right_reach)[0]

    @torch.inference_mode()
    def _run(
        self, frames: np.ndarray, state: NetworkState, num_padding: int
    ) -> tuple[np.ndarray, NetworkState]:
        """Process frames, and frames of zeros after them in front of each memory."""
        backbone = self.model.backbone
        config = backbone.config
        rows = torch.from_numpy(frames)
        if self.model.global_cmvn is not None:
            rows = self.model.global_cmvn(rows)
        rows = backbone.in_linear2(backbone.in_linear1(rows)).relu()
        next_state = []
        reach = config.left_reach + config.right_reach
        for block, past in zip(backbone.blocks, state, strict=True):
            project, memory, expand = block.layers
            padding = rows.new_zeros(num_padding, config.proj_dim)
            inputs = torch.cat([torch.from_numpy(past), project(rows), padding])
            num_rows = max(0, len(inputs) - reach)
            mixed = inputs[:0]
            if num_rows:
                present = inputs[config.left_reach : config.left_reach + num_rows]
                mixed = present + memory.mix(inputs)
            rows = expand(mixed).relu()
            next_state.append(inputs[num_rows:].clone().numpy())
        return self._log_probs(rows), tuple(next_state)

    def _log_probs(self, rows: Tensor) -> np.ndarray:
        backbone = self.model.backbone
        return backbone.out_linear2(backbone.inner_out(rows)).log_softmax(-1).numpy()


def load_checkpoint(
    checkpoint: StrPath,
    *,
    config: StrPath | None = None,
    dict_path: StrPath | None = None,
    lexicon: StrPath | None = None,
    keywords_file: StrPath | None = None,
    refractory_s: float = 1.0,
) -> SpotterModel:
    """Return the detector of a checkpoint; files that are not given lie beside it.

    Keywords have the longest duration that scoring gives them, and the thresholds that
    `wekws.bin.tune_threshold` chose for this checkpoint, or none.
    Raises: ConfigError or DataError naming the file, keyword or token that does not fit.
    """
    checkpoint = Path(checkpoint)
    config = config or config_beside(checkpoint)
    labels = LabelSet.load(
        dict_path or checkpoint.parent / "dict.txt",
        lexicon=lexicon or lexicon_beside(checkpoint),
        keywords_file=keywords_file or checkpoint.parent / "keywords.txt",
    )
    if dict_path is None:
        require_trained_vocabulary(checkpoint.parent, labels)
    front_end = load_dataset_config(config).front_end
    model = SpotterModel(
        network=TorchNetwork(load_scored_model(checkpoint, config), front_end),
        tokens=labels.vocabulary.tokens,
        keywords=tuple(new_keyword(text, labels.tokenizer) for text in labels.keywords),
        refractory_s=refractory_s,
    )
    chosen = read_thresholds(checkpoint, config)
    return model.with_thresholds({text: chosen[text] for text in labels.keywords if text in chosen})
