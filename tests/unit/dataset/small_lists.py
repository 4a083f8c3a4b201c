"""A small data list of noise, and data sets made of it."""

from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.label_set import LabelSet
from wekws.dataset.opening import open_dataset
from wekws.dataset.vocabulary import Tokenizer, Vocabulary

RATE = 16000
VOCABULARY = Vocabulary(("<blk>", "<filler>", "嗨", "小", "问"))
LABELS = LabelSet(vocabulary=VOCABULARY, tokenizer=Tokenizer(), keywords=("嗨小问",))
TEXTS = ["嗨小问", "小明", "", "你好嗨小问", "问问"]


def make(data_list, config=None, is_training=True, **options):
    config = DatasetConfig() if config is None else config
    return open_dataset(
        data_list,
        config,
        LABELS,
        cache_dir=data_list.parent.parent / "cache",
        is_training=is_training,
        **options,
    )
