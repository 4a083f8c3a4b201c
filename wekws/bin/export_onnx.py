"""Export a checkpoint to one ONNX file that runs alone: keywords, thresholds, front end inside.

python -m wekws.bin.export_onnx --checkpoint exp/X/avg_30.pt --data_list data/X/dev/data.list
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.errors import ConfigError
from wekws.log import run
from wekws.stream.metadata import PRECISIONS


def main(argv: list[str] | None = None) -> int:
    """Export in each precision, print sizes and the comparison with the checkpoint."""
    # Here, because the packages of the extra `export` may be missing.
    from wekws.export.exporter import (
        LAYOUTS,
        export_checkpoint,
        require_calibration,
        summary_line,
    )
    from wekws.export.golden_vectors import golden_recording, write_golden

    args = _parser(LAYOUTS).parse_args(argv)
    if args.out is not None and len(args.precision) > 1:
        raise ConfigError("--out names one file; leave it out to export in several precisions")
    if args.golden is not None and (len(args.precision) > 1 or args.layout != "stream"):
        raise ConfigError("--golden is for one precision and layout stream")
    for precision in args.precision:
        require_calibration(precision, args.data_list)  # before the first file is written
    for precision in args.precision:
        exported = export_checkpoint(
            args.checkpoint,
            args.out,
            precision=precision,
            layout=args.layout,
            data_list=args.data_list,
            num_utterances=args.num_utterances,
            refractory_s=args.refractory_s,
            config=args.config,
            dict_path=args.dict,
            lexicon=args.lexicon,
            keywords_file=args.keywords_file,
        )
        print(summary_line(exported))
        if args.golden is not None:
            samples = golden_recording(exported.path, args.data_list)
            print(write_golden(exported.path, args.golden, samples))
    return 0


def _parser(layouts: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="model: N.pt, final.pt or avg_N.pt")
    add(
        "--out", type=Path, help="file to write [the checkpoint's name with .onnx, .int8.onnx, ...]"
    )
    add(
        "--precision", choices=PRECISIONS, nargs="+", default=["fp32"],
        help="format of the weights, one file each; int8 also computes in int8 [fp32]",
    )  # fmt: skip
    add(
        "--layout", choices=layouts, default="stream",
        help="stream: our own graph (wekws/export/PORTING.md); wekws: that of WeKWS's runtimes "
        "[%(default)s]",
    )  # fmt: skip
    add(
        "--data_list", type=Path,
        help="recordings of dev that calibrate int8 and on which outputs are compared "
        "[a synthesised signal; int8 needs recordings]",
    )  # fmt: skip
    add(
        "--num_utterances", type=int, default=200,
        help="utterances of --data_list for calibration, at most [%(default)s]",
    )  # fmt: skip
    add(
        "--refractory_s", type=float, default=1.0,
        help="shortest time between two detections of one keyword, in seconds [%(default)s]",
    )  # fmt: skip
    add(
        "--golden", type=Path,
        help="folder for golden vectors: a recording of --data_list (or a synthesised signal) with "
        "every intermediate result",
    )  # fmt: skip
    add("--config", type=Path, help="configuration [config.yaml beside the checkpoint]")
    add("--dict", type=Path, help="dictionary of tokens [dict.txt beside the checkpoint]")
    add("--lexicon", type=Path, help="lexicon [lexicon.txt beside the checkpoint, if there is one]")
    add("--keywords_file", type=Path, help="one keyword per line [keywords.txt beside it]")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
