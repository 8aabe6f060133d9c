"""`showtell bulk`: more pictures than one process should caption, in shards, on Ray."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showtell.cli.arguments import Commands, add_command, integer, one_of, writable_folder
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.engine_options import add_engine_options, add_model_option, load_captioner
from showtell.cli.output import log
from showtell.cli.output_options import add_caption_options
from showtell.cli.progress import show_progress
from showtell.cli.ray_options import add_ray_address, log_workers, require_ray, without_chatter
from showtell.errors import Interrupted, count
from showtell.interruption import termination_as_interruption

if TYPE_CHECKING:
    from showtell.bulk.run import Report

_SHOWN = 5  # shards that were given up


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "bulk",
        run,
        summary="caption millions of images, in shards, on one machine or many (Ray)",
        description="Captions folders, lists, Parquet files and WebDataset tar files, here or in a store (s3://, gs://),\n"
        "into Parquet files with a manifest. Stopped or killed, the same command goes on with what is missing.",
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a folder of images, a list of paths, Parquet or tar files, a folder of these, or a pattern in quotes",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=_folder_or_store,
        required=True,
        help="a new folder, or one to go on with; here or in a store",
    )
    group = parser.add_argument_group("input")
    group.add_argument(
        "--kind",
        metavar="auto|images|list|parquet|webdataset",
        type=one_of("auto", "images", "list", "parquet", "webdataset"),
        default="auto",
        help="what INPUT is; auto (default) goes by how names end",
    )
    group.add_argument(
        "--image-column",
        metavar="NAME",
        help="of Parquet: the column of images or of paths to them; default: found by name",
    )
    group.add_argument(
        "--key-column",
        metavar="NAME",
        help="of Parquet: what rows are called; default: the path, or FILE#ROW",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        metavar="parquet|jsonl",
        type=one_of("parquet", "jsonl"),
        default="parquet",
        help="default parquet",
    )
    group.add_argument(
        "--shard-size",
        metavar="N",
        type=integer(minimum=1),
        default=1024,
        help="images in one file of rows, and what is lost at most when a worker dies (default 1024; of named images)",
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="do those shards again that hold images which could not be read",
    )
    add_caption_options(group)
    group = parser.add_argument_group("Ray")
    add_ray_address(group, otherwise="Ray is started here")
    group.add_argument(
        "--workers",
        metavar="N",
        type=integer(minimum=1),
        help="captioners; default: as many as there are processors for",
    )
    add_model_option(parser)
    add_decoding_options(parser)
    add_engine_options(parser, threads="processor threads of each worker (default 1)")


def run(arguments: argparse.Namespace) -> int:
    """Captions what has no row yet; returns 1 if an image or a shard could not be read."""
    require_ray("Captioning in bulk")
    arguments.threads = arguments.threads or 1
    captioner = load_captioner(arguments.model, arguments)
    settings = read_decoding_settings(arguments, captioner.settings, count=arguments.count)
    # Refuses what cannot be asked of this captioner, before there is a plan that asks for it.
    next(captioner.caption([], settings, min_confidence=arguments.min_confidence), None)
    digest = captioner.digest
    del captioner  # workers have their own

    from showtell.bulk.engine import Resources
    from showtell.bulk.inputs import Inputs
    from showtell.bulk.run import run_bulk
    from showtell.bulk.tables import Columns
    from showtell.bulk.work import Job
    from showtell.outputs import Failures

    columns = Columns(arguments.image_column, arguments.key_column)
    job = Job(
        models=None if arguments.model is None else tuple(map(_whole, arguments.model)),
        digest=digest,
        engine=arguments.engine,
        precision=arguments.precision,
        threads=arguments.threads,
        settings=settings,
        min_confidence=arguments.min_confidence,
        alt_text=arguments.alt_text,
        columns=columns,
        form=arguments.format,
        output=_whole_output(arguments.output),
    )
    failures = Failures(f"the rows of {arguments.output}", log)
    try:
        with (
            show_progress("captions", "images") as progress,
            without_chatter(),
            termination_as_interruption(),
        ):
            report = run_bulk(
                Inputs(arguments.inputs, arguments.kind, columns),
                job,
                Resources(arguments.ray_address, arguments.workers or 0, arguments.threads),
                shard_size=arguments.shard_size,
                retry_failed=arguments.retry_failed,
                progress=progress,
                on_shard=failures.add_many,
                say=log,
            )
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; what is finished is kept in {arguments.output}; the same command goes on"
        ) from None
    _sum_up(report, arguments.output)
    failures.report()
    if earlier := report.failing - report.failed:
        log(f"error: rows of earlier runs have an error: {earlier:,}. --retry-failed does their shards again")
    return 1 if report.failing or report.given_up or not report.complete else 0


def _sum_up(report: Report, output: str) -> None:
    """Says what was done, and what is missing."""
    speed = (
        f" in {report.seconds:,.0f} s ({report.rows / report.seconds:,.1f} a second)" if report.rows else ""
    )
    before = f"; {report.reused:,} were done before" if report.reused else ""
    errors = f", {count(report.failed, 'error')}" if report.failed else ""
    log(f"captioned {count(report.rows - report.failed, 'image')}{errors}{speed}{before}")
    log_workers(report.lost_workers, report.done)
    if report.complete:
        rows = count(report.rows + report.reused, "row")
        log(f"{output} is complete: {rows} in {count(report.shards, 'shard')}")
    if not report.given_up:
        return
    log(f"error: {len(report.given_up):,} of {count(report.shards, 'shard')} could not be done:")
    for number, reason in sorted(report.given_up.items())[:_SHOWN]:
        log(f"  shard {number}: {reason}")
    log("mend the input; the same command does what is missing")


def _folder_or_store(word: str) -> str:
    """An argument type: where results go, which need not exist."""
    from showtell.bulk.places import is_remote

    if not is_remote(word):
        writable_folder(word)
    return word


def _whole(model: Any) -> str:
    """Returns a model as workers find it, which have other working folders; names stay names."""
    return os.path.abspath(model) if isinstance(model, Path) else str(model)  # noqa: PTH100


def _whole_output(output: str) -> str:
    from showtell.bulk.places import is_remote
    from showtell.files import expand_home

    return output if is_remote(output) else os.path.abspath(expand_home(output))  # noqa: PTH100
