"""`showtell serve`: captions over HTTP."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from showtell.cli.arguments import Commands, add_command, existing, integer, one_of, real
from showtell.cli.engine_options import add_engine_options, add_model_option
from showtell.cli.output import log
from showtell.errors import UsageError, require_packages

MEGABYTE = 1024 * 1024
MEGAPIXEL = 1_000_000


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "serve",
        run,
        summary="caption images over HTTP",
        description="Answers POST /v1/captions, GET /wowme?image=URL, /v1/models, /healthz, /readyz and /metrics; the\n"
        "API is described at /openapi.json. Ctrl-C and SIGTERM end it when what was accepted is answered.",
    )
    add_model_option(parser)
    parser.add_argument(
        "--host", metavar="H", default="127.0.0.1", help="to listen on; default 127.0.0.1: this machine"
    )
    parser.add_argument(
        "--port", metavar="P", type=integer(minimum=0), default=8000, help="default 8000; 0: a free one"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=integer(minimum=1),
        default=1,
        help="processes, each with the model; default 1",
    )
    parser.add_argument(
        "--hang-timeout",
        metavar="S",
        type=real(minimum=5),  # as `LEAST_HANG_SECONDS`
        default=30.0,
        help="seconds without a sign of life, at least 5, after which one of several workers is killed and replaced; "
        "default 30",
    )
    parser.add_argument(
        "--log-level",
        metavar="L",
        type=one_of("debug", "info", "warning", "error"),
        default="info",
        help="of the JSON lines on standard error: debug, info (default: a line per request), warning or error",
    )
    _add_access(parser)
    _add_limits(parser)
    _add_work(parser)
    add_engine_options(parser)


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("access")
    group.add_argument(
        "--keys",
        metavar="FILE",
        type=existing,
        help="API keys, a line for each: NAME KEY [PICTURES_PER_MINUTE]; also from $SHOWTELL_API_KEYS",
    )
    group.add_argument(
        "--rate",
        metavar="N",
        type=integer(minimum=1),
        help="pictures a minute for each key whose line names no rate; default any number",
    )
    group.add_argument(
        "--urls",
        metavar="WHICH",
        type=one_of("public", "any", "none"),
        default="public",
        help="which addresses images are fetched from: public (default), any (also of your network), or none",
    )
    group.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name that the service goes by; default any, or only localhost where it listens on this machine alone",
    )
    group.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="a site whose pages may use the service, as https://example.com; default only its own page",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits", "Of one request, unless they say otherwise.")
    group.add_argument("--max-images", metavar="N", type=integer(minimum=1), help="images; default 32")
    group.add_argument(
        "--max-body", metavar="MB", type=real(above=0), help="megabytes of the body; default 32"
    )
    group.add_argument(
        "--max-pixels",
        metavar="MP",
        type=real(above=0),
        help="megapixels of an image, width x height; default 50",
    )
    group.add_argument(
        "--timeout", metavar="S", type=real(above=0), help="seconds until its answer; default 30"
    )
    group.add_argument(
        "--body-timeout", metavar="S", type=real(above=0), help="seconds until its body has come; default 20"
    )
    group.add_argument(
        "--queue",
        metavar="N",
        type=integer(minimum=1),
        help="images of all requests that may wait; default 64",
    )
    group.add_argument(
        "--body-memory", metavar="MB", type=real(above=0), help="megabytes of all bodies at once; default 256"
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("work", "Of each worker process.")
    group.add_argument(
        "--batch", metavar="N", type=integer(minimum=1), default=16, help="images together; default 16"
    )
    group.add_argument(
        "--batch-wait",
        metavar="MS",
        type=real(minimum=0),
        default=5.0,
        help="milliseconds that an image waits for others that are being decoded; default 5",
    )
    group.add_argument(
        "--decoders", metavar="N", type=integer(minimum=1), default=2, help="threads that decode; default 2"
    )
    group.add_argument(
        "--cache",
        metavar="MB",
        type=real(minimum=0),
        default=64.0,
        help="megabytes of captions to keep; default 64",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is told to end."""
    require_packages(
        "serve", "The service", "fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"
    )
    from showtell.runtime import EngineOptions
    from showtell.server.keys import read_keys
    from showtell.server.processes import serve
    from showtell.server.settings import Limits, ServerSettings

    if arguments.engine == "torch":
        raise UsageError(
            "The service runs exported models, on openvino or onnxruntime. Export yours: showtell export MODEL "
            "--output FOLDER, and give FOLDER."
        )
    keys = read_keys(arguments.keys)
    if arguments.rate is not None and not keys:
        raise UsageError("--rate limits keys, and there are none. Give --keys FILE, or drop --rate.")
    threads = arguments.threads or max(1, EngineOptions().thread_count // arguments.workers)
    settings = ServerSettings(
        models=_find_models(arguments.model),
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        engine=arguments.engine,
        precision=arguments.precision,
        threads=threads,
        decoders=arguments.decoders,
        batch=arguments.batch,
        batch_wait=arguments.batch_wait / 1000,
        cache_bytes=round(arguments.cache * MEGABYTE),
        hang_seconds=arguments.hang_timeout,
        drain_seconds=(arguments.timeout or Limits.seconds) + 5,
        urls=arguments.urls,
        hosts=tuple(name.lower() for name in arguments.allow_host),
        origins=tuple(arguments.allow_origin),
        keys=keys,
        rate=arguments.rate or 0,
        limits=Limits(**_read_limits(arguments)),
    )
    if not (settings.is_local or keys):
        log(f"listens on {settings.host} without keys: whoever reaches this machine can use it (--keys FILE)")
    return serve(settings, level=arguments.log_level, announce=lambda url: log(f"{url} (Ctrl-C ends it)"))


def _find_models(words: list[str | Path] | None) -> tuple[str, ...]:
    """Returns the folders of the models, found (and fetched) once for all workers."""
    from showtell.library import default_model, locate_model
    from showtell.portable import is_portable

    folders = [locate_model(word) for word in words] if words else [default_model()]
    for folder in folders:
        if not is_portable(folder):
            raise UsageError(
                f"{folder}: the service runs exported models only, without PyTorch. Export it first: showtell export "
                f"{folder} --output FOLDER, and give FOLDER."
            )
    return tuple(str(folder) for folder in folders)


def _read_limits(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {
        "images": arguments.max_images,
        "body_bytes": arguments.max_body and round(arguments.max_body * MEGABYTE),
        "pixels": arguments.max_pixels and round(arguments.max_pixels * MEGAPIXEL),
        "seconds": arguments.timeout,
        "body_seconds": arguments.body_timeout,
        "queue": arguments.queue,
        "memory_bytes": arguments.body_memory and round(arguments.body_memory * MEGABYTE),
    }
    return {name: value for name, value in given.items() if value is not None}
