"""Commands: one thin file each, run as ``python -m wekws.bin.NAME``."""
