"""Structured logs: one JSON object per line on standard error. Never with an image, a query or a key."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": os.getpid(),
            "event": record.getMessage().strip(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str) -> dict[str, Any]:
    """Returns the configuration of `logging` in which the service's and the server's lines go the same way.

    Lines of other libraries do so, too, from warnings on. But the parser of forms complains of each bad one, in words
    that show what was sent; the request's own line says that it was bad.
    """
    loggers = ("showtell.server", "uvicorn", "uvicorn.error")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
        },
        "loggers": {
            name: {"handlers": ["stderr"], "level": level.upper(), "propagate": False} for name in loggers
        }
        # Lines of `uvicorn.access` have the query, and with it perhaps somebody's secrets; ours do not.
        | {
            name: {"handlers": [], "level": "CRITICAL", "propagate": False}
            for name in ("uvicorn.access", "python_multipart")
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }
