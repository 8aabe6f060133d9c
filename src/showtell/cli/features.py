"""`showtell features`: what a frozen backbone sees in every image, computed once and kept on disk."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from showtell.cli.arguments import Commands, add_command, integer, one_of, writable_folder
from showtell.cli.data_options import add_data_options, read_data
from showtell.cli.output import log, print_json
from showtell.cli.progress import show_progress
from showtell.cli.ray_options import add_ray_address, log_workers, require_ray, without_chatter
from showtell.errors import UsageError, require_framework
from showtell.interruption import termination_as_interruption

if TYPE_CHECKING:
    from showtell.bulk.features import RayBatches


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "features",
        run,
        summary="compute a frozen encoder's features of all images once, into a cache",
        description="Computes features of the images of captioned data into a folder, for `train --features`.\n"
        "Interrupted, it goes on where it stopped when the same command is given again.",
    )
    add_data_options(parser, positional=True)
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--encoder",
        metavar="NAME",
        action="append",
        required=True,
        help="any timm backbone, as resnet50; given again, each has a cache in a folder of its name",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        action="append",
        help="a .safetensors or .pth file, imagenet (default) or random; again for each of several encoders",
    )
    group.add_argument("--pooled", action="store_true", help="one vector per image instead of a grid of them")
    group.add_argument(
        "--image-size",
        metavar="N",
        type=integer(minimum=0),
        default=0,
        help="pixels; 0 is the backbone's own (default)",
    )
    group.add_argument(
        "--fit", metavar="squash|crop", type=one_of("squash", "crop"), default="squash", help="default squash"
    )
    group.add_argument(
        "--precision",
        metavar="P",
        type=one_of("auto", "bf16", "float32"),
        default="auto",
        help="auto (default), bf16 or float32",
    )
    parser.add_argument(
        "--output", metavar="CACHE", type=writable_folder, required=True, help="the folder to fill"
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="throw away a cache that does not fit, and start anew"
    )
    parser.add_argument("--skip-bad", action="store_true", help="go on without images that cannot be read")
    parser.add_argument("--batch-size", metavar="N", type=integer(minimum=1), default=32, help="default 32")
    parser.add_argument(
        "--workers", metavar="N", type=integer(minimum=1), default=2, help="threads that decode images (2)"
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=integer(minimum=1),
        help="processor threads of the encoder; default: one per core, and 1 for each worker on Ray",
    )
    group = parser.add_argument_group("Ray", "Several encoders, on this machine or on many (docs/bulk.md).")
    group.add_argument("--ray", action="store_true", help="start Ray here, with a worker for each processor")
    add_ray_address(group, otherwise="Ray is started here, where --ray asks for it")
    group.add_argument(
        "--ray-workers",
        metavar="N",
        type=integer(minimum=1),
        help="encoders; default: as many as there are processors for",
    )


def run(arguments: argparse.Namespace) -> int:
    """Fills the cache of each backbone and prints how much and how fast, one JSON object for each."""
    require_framework("Extracting features")
    from showtell.config import SEPARATOR, EncoderConfig
    from showtell.encoders import build_encoder, extract_features, list_caches
    from showtell.encoders.batches import compute_batches

    on_ray = _open_ray(arguments)
    dataset = read_data(arguments)
    encoder = build_encoder(
        EncoderConfig(
            name=SEPARATOR.join(arguments.encoder),
            output="pooled" if arguments.pooled else "grid",
            weights=SEPARATOR.join(arguments.weights or ["imagenet"]),
            image_size=arguments.image_size,
            fit=arguments.fit,
            precision=arguments.precision,
        )
    )
    quiet = contextlib.nullcontext if on_ray is None else without_chatter
    skipped: dict[str, str] = {}
    for member, folder in list_caches(encoder, arguments.output):
        with (
            show_progress(f"features of {member.source.name}", "images") as progress,
            quiet(),
            termination_as_interruption(),
        ):
            report = extract_features(
                dataset,
                member,
                folder,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                progress=progress,
                rebuild=arguments.rebuild,
                skip_bad=arguments.skip_bad,
                source=on_ray or compute_batches,
            )
        for image_id, reason in report.skipped.items():
            if image_id not in skipped:
                log(f"skipped {image_id}: {reason}")
        skipped.update(report.skipped)
        print_json(
            {
                "encoder": member.source.name,
                "images": report.images,
                "reused": report.reused,
                "images_per_second": report.images_per_second,
                "bytes": report.bytes,
                "skipped": len(report.skipped),
            }
        )
    if on_ray is not None:
        log_workers(on_ray.lost_workers, on_ray.done)
    return 1 if skipped else 0


def _open_ray(arguments: argparse.Namespace) -> RayBatches | None:
    """Returns what computes features on Ray; None where it is not asked for, and the encoder is set up to work here."""
    if not arguments.ray and arguments.ray_address is None:
        if arguments.ray_workers is not None:
            raise UsageError(
                "--ray-workers says how many encoders work on Ray. Give --ray, or --ray-address."
            )
        if arguments.threads is not None:
            from showtell.encoders.elsewhere import use_threads

            use_threads(arguments.threads)
        return None
    require_ray("Extracting features on Ray")
    from showtell.bulk.address import check_address
    from showtell.bulk.engine import Resources
    from showtell.bulk.features import RayBatches

    if arguments.ray_address is not None:  # while there is no folder yet
        check_address(arguments.ray_address)
    return RayBatches(Resources(arguments.ray_address, arguments.ray_workers or 0, arguments.threads or 1))
