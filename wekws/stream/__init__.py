"""The detector: front end, network and keyword search on a stream, without torch."""
