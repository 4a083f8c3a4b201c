"""Data: audio, lists, vocabulary, features, augmentation, cache and batches."""
