"""Find keywords in files, folders, a pipe or the microphone, with a trained model.

wekws-spot --checkpoint exp/student/avg_30.pt recording.wav
wekws-spot --model student.onnx --json folder/
sox ... -t wav - | wekws-spot --model student.onnx -
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from wekws.dataset.audio import probe
from wekws.dataset.pcm_stream import read_pcm
from wekws.dataset.vocabulary import lexicon_beside, parse_keywords
from wekws.errors import ConfigError, DataError
from wekws.log import run
from wekws.score.results import thresholds_beside
from wekws.stream import Detection, KeywordSpotter, SpotterModel, load_model
from wekws.stream.microphone import read_microphone
from wekws.stream.onnx_network import ONNX_SUFFIX
from wekws.stream.spot_files import FILE_FRAMES_PER_STEP, recordings_in, spot_file, spot_pieces
from wekws.stream.web import serve

logger = logging.getLogger(__name__)

UNTUNED_THRESHOLD = 0.5
LONG_S = 60.0  # recordings from here on have a progress bar
PIPE = "-"


def main(argv: list[str] | None = None) -> int:
    """Print the detections of every input."""
    args = _parse_arguments(argv)
    model = prepare_model(
        args.checkpoint or args.model,
        keywords=parse_keywords(args.keywords) if args.keywords else None,
        lexicon=args.lexicon,
        threshold=args.threshold,
    )
    show = show_json if args.json else show_text
    if args.web:
        serve(model, args.port, lambda address: print(f"open {address}", flush=True))
        return 0
    if args.mic:
        rate_hz = model.front_end.sample_rate_hz
        print_all("microphone", spot_live(model, read_microphone(rate_hz)), show)
        return 0
    if args.inputs == [PIPE]:
        print_all("stdin", spot_pipe(model, args), show)
        return 0
    return print_recordings(model, args.inputs, args.plot, show)


def print_recordings(
    model: SpotterModel, inputs: Sequence[str], plot_path: Path | None, show: "Show"
) -> int:
    """Print the detections of files and folders; return the exit status.

    One that cannot be used is an error in the log, and the others are processed all the same.
    """
    paths, status = [], 0
    for name in inputs:
        try:
            paths += recordings_in(name)
        except DataError as error:
            if len(inputs) == 1:
                raise
            logger.error("%s", error)
            status = 2
    if plot_path is not None and len(paths) != 1:
        raise ConfigError(f"--plot: draws one recording; found {len(paths)}")
    for path in paths:
        try:
            print_all(str(path), spot_recording(model, path, plot_path), show)
        except DataError as error:
            if len(paths) == 1:
                raise
            logger.error("%s", error)
            status = 2
    return status


def prepare_model(
    path: Path,
    *,
    keywords: Sequence[str] | None = None,
    lexicon: Path | None = None,
    threshold: float | None = None,
) -> SpotterModel:
    """Load a model, choose its keywords (None: its own), and complete their thresholds."""
    model = load_model(path)
    if keywords is not None:
        model = model.with_keywords(keywords, lexicon or lexicon_beside(path))
    if threshold is not None:
        return model.with_thresholds(threshold)
    missing = [keyword.text for keyword in model.keywords if keyword.threshold is None]
    if missing and path.suffix != ONNX_SUFFIX and (scored := thresholds_beside(path)):
        found = {text: scored.by_keyword[text] for text in missing if text in scored.by_keyword}
        model = model.with_thresholds(found)
        missing = [text for text in missing if text not in found]
        if found:
            source = "dev" if scored.chosen_on == "dev" else "the test set itself"
            logger.info(
                "thresholds for %s, chosen on %s: %s", scored.budget, source, scored.result_dir
            )
    if missing:
        logger.warning(
            "%s: no threshold was chosen, %g is used; choose one on recordings "
            "(python -m wekws.bin.tune_threshold), or give --threshold",
            ", ".join(missing),
            UNTUNED_THRESHOLD,
        )
    return model.with_thresholds(dict.fromkeys(missing, UNTUNED_THRESHOLD))


def spot_live(model: SpotterModel, pieces: Iterable[np.ndarray]) -> Iterator[Detection]:
    """Yield the detections of a stream with the lowest delay."""
    return spot_pieces(KeywordSpotter(model), pieces)


def spot_pipe(model: SpotterModel, args: argparse.Namespace) -> Iterator[Detection]:
    """Yield the detections of standard input."""
    rate_hz = model.front_end.sample_rate_hz
    raw_rate_hz = rate_hz if args.sample_rate_hz is None else args.sample_rate_hz
    return spot_live(model, read_pcm(sys.stdin.buffer, rate_hz, raw_rate_hz))


def spot_recording(
    model: SpotterModel, path: Path, plot_path: Path | None = None
) -> Iterator[Detection]:
    """Yield the detections of a file, with a progress bar on a terminal, and draw them."""
    if plot_path is not None:
        yield from _spot_and_plot(model, path, plot_path)
        return
    spotter = KeywordSpotter(model, frames_per_step=FILE_FRAMES_PER_STEP)
    with Progress(path, model.front_end.sample_rate_hz) as progress:
        yield from spot_file(spotter, path, progress.advance)


def _spot_and_plot(model: SpotterModel, path: Path, plot_path: Path) -> Iterator[Detection]:
    # matplotlib takes a second to import, and an environment for detectors alone lacks it.
    try:
        from wekws.plot.detections import RecordedStream, plot_detections
    except ImportError as error:
        raise ConfigError(f"--plot needs {error.name}: pip install {error.name}") from None
    stream = RecordedStream()
    rate_hz = model.front_end.sample_rate_hz
    spotter = KeywordSpotter(
        model, frames_per_step=FILE_FRAMES_PER_STEP, observer=stream.frames.append
    )
    detections = []
    for detection in spot_file(spotter, path, lambda piece: stream.add_samples(piece, rate_hz)):
        detections.append(detection)
        yield detection
    plot_detections(stream, model, detections, plot_path, title=path.name)


class Progress:
    """Progress bar of a long recording, on a terminal."""

    def __init__(self, path: Path, sample_rate_hz: int) -> None:
        """Show a bar if the recording is long and tqdm is installed."""
        self._sample_rate_hz = sample_rate_hz
        self._bar = None
        if sys.stderr.isatty() and (duration_s := probe(path).duration_s) >= LONG_S:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=round(duration_s), desc=path.name, unit="s", leave=False)

    def advance(self, samples: np.ndarray) -> None:
        """Count the samples that were processed."""
        if self._bar is not None:
            self._bar.update(len(samples) / self._sample_rate_hz)

    def __enter__(self) -> "Progress":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


Show = Callable[[str, Detection], str]


def show_text(source: str, found: Detection) -> str:
    """Return a line for people."""
    return (
        f"{source}: {found.start_s:.2f} to {found.end_s:.2f} s  {found.keyword}  "
        f"{found.confidence:.3f}"
    )


def show_json(source: str, found: Detection) -> str:
    """Return a line of JSON."""
    return json.dumps({"source": source, **vars(found)}, ensure_ascii=False)


def print_all(source: str, detections: Iterable[Detection], show: Show) -> None:
    """Print detections as they come."""
    for detection in detections:
        print(show(source, detection), flush=True)


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wekws-spot", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("inputs", nargs="*", help="audio files, folders of them, or - for standard input")
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--checkpoint", type=Path, help="trained model, N.pt or avg_N.pt")
    models.add_argument("--model", type=Path, help="exported model, .onnx")
    add("--mic", action="store_true", help="take the default microphone as input")
    add("--web", action="store_true", help="serve a page that takes the browser's microphone")
    add("--port", type=int, default=8765, help="port of the page [%(default)s]")
    add("--keywords", help="other keywords than the model's own, such as 'JARVIS,SMART MIRROR'")
    add("--lexicon", type=Path, help="pronunciations of --keywords [lexicon.txt beside the model]")
    add(
        "--threshold", type=float,
        help="threshold for all keywords, 0 to 1 [those chosen for the model, or from its results]",
    )  # fmt: skip
    add("--json", action="store_true", help="one JSON object per detection, times in seconds")
    add("--plot", type=Path, help="figure of one recording, .png, .pdf or .svg")
    add("--sample_rate_hz", type=int, help="rate of raw PCM on standard input [the model's]")
    args = parser.parse_args(argv)
    if [bool(args.inputs), args.mic, args.web].count(True) != 1:
        parser.error("give files, folders or - as input, or --mic, or --web")
    is_live = args.mic or args.web or args.inputs == [PIPE]
    if args.plot and is_live:
        parser.error("--plot: draws a file; save the stream to one")
    if args.json and args.web:
        parser.error("--json: the page shows the detections; leave out --json or --web")
    if args.sample_rate_hz is not None and args.inputs != [PIPE]:
        parser.error("--sample_rate_hz: is the rate of raw PCM on standard input (-)")
    if args.lexicon and not args.keywords:
        parser.error("--lexicon: gives pronunciations of --keywords; add them")
    if args.plot and args.plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        parser.error(f"--plot {args.plot}: expected a name that ends in .png, .pdf or .svg")
    if PIPE in args.inputs and len(args.inputs) > 1:
        parser.error("standard input (-) can only be the one input")
    return args


def command() -> int:
    """Run the console script."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
