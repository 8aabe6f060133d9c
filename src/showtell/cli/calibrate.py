"""`showtell calibrate`: makes a captioner say how sure it is, and measures what that is worth."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING

from showtell.cli.arguments import Commands, add_command, integer, model, writable_file
from showtell.cli.data_options import SPLIT, add_data_options, add_split_options, read_split_data
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.engine_options import add_engine_options, load_captioner
from showtell.cli.output import log, print_json
from showtell.cli.progress import show_progress
from showtell.cli.scoring_options import find_learnt
from showtell.errors import UsageError, require_packages
from showtell.files import write_atomically, write_json

if TYPE_CHECKING:
    from showtell.confidence import Calibration


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "calibrate",
        run,
        summary="measure how sure a captioner may be of its captions, and let it say so",
        description="Captions a split that was not trained on and fits, from the probabilities of the search, the "
        "chance\nthat people would use a word, too, and the share of such words in a caption. Prints what these are "
        "worth.",
    )
    parser.add_argument(
        "model", metavar="MODEL", type=model, help="an exported model, a bundle, a run folder, or a name"
    )
    parser.add_argument("--split", metavar="S", type=SPLIT, default="dev", help="default dev")
    parser.add_argument("--max-images", metavar="N", type=integer(minimum=1), help="only the first N images")
    parser.add_argument("--write", action="store_true", help="let MODEL say it with each caption from now on")
    parser.add_argument(
        "--output", metavar="FILE", type=writable_file, help="keep the measurement there, as JSON"
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=writable_file, help="draw the reliability diagram there, as PNG"
    )
    add_decoding_options(parser)
    add_engine_options(parser)
    add_data_options(parser, positional=False)
    add_split_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Captions, fits and measures; prints one JSON object with the measurement."""
    from showtell.bundle import EXPORTED, store_confidence
    from showtell.confidence import Said, fit_confidence
    from showtell.library import is_name, locate_model
    from showtell.portable import find_model, is_portable

    if arguments.write and is_name(str(arguments.model)):
        raise UsageError(
            f"--write: {arguments.model} is not yours to change. Copy its folder (showtell models says where it is) "
            "and give the copy."
        )
    if arguments.split == "train":
        raise UsageError(
            "--split train: a captioner is too sure of what it was trained on. Give another split."
        )
    if arguments.plot is not None:
        require_packages("train", "Drawing the reliability diagram", "matplotlib")
    folder = find_model(locate_model(arguments.model))
    dataset = read_split_data(arguments)
    images = dataset.split(arguments.split).images[: arguments.max_images]
    for note in find_learnt(arguments, dataset, [arguments.model]):
        log(note)
    captioner = load_captioner(arguments.model, arguments)
    settings = read_decoding_settings(arguments, captioner.settings)
    captions: list[Said] = []
    with show_progress("captions", "images") as progress:
        for result in captioner.caption((image.path for image in images), settings):
            if result.error is not None:
                raise result.error
            best = result.captions[0]
            captions.append(Said(best.words, best.word_log_probs))
            progress(len(captions), len(images))
    calibration = fit_confidence(captions, [image.captions for image in images])
    if arguments.output is not None:
        write_json(arguments.output, {**calibration.to_dict(), "settings": settings.to_dict()})
    if arguments.plot is not None:
        write_atomically(arguments.plot, draw_reliability(calibration))
    if arguments.write:
        manifest = EXPORTED if is_portable(folder) else "bundle.json"
        digest = store_confidence(folder, manifest, calibration.confidence)
        log(f"{folder} says from now on how sure it is (digest {digest[:12]}...)")
    print_json(
        {
            "images": calibration.images,
            "word_expected_error": calibration.words.expected_error,
            "raw_word_expected_error": calibration.raw_words.expected_error,
            "caption_expected_error": calibration.captions.expected_error,
            "word_ranking": calibration.word_ranking,
            "caption_ranking": calibration.caption_ranking,
        }
    )
    return 0


def draw_reliability(calibration: Calibration) -> bytes:
    """Returns a PNG: what was predicted against what was true, for words and captions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    styles = (("probability of the search", "C1s:"), ("confidence", "C0o-"))
    parts = (
        ("words", "share that people used, too", (calibration.raw_words, calibration.words)),
        ("captions", "share of content words that people used, too", (calibration.captions,)),
    )
    for axes, (title, label, lines) in zip(figure.subplots(1, 2), parts, strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
        for (name, style), line in zip(styles[-len(lines) :], lines, strict=True):
            axes.plot(line.predicted, line.observed, style, label=f"{name} (error {line.expected_error:.3f})")
        axes.set(title=title, xlabel="predicted", ylabel=label, xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
