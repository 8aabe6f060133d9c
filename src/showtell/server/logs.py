"""Structured logs: one JSON object per line on standard error. Never with an image, a query or a key."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

LEVELS = ("debug", "info", "warning", "error")


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
    """Returns the configuration of `logging` in which the service's and the server's lines go the same way."""
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
        # Its lines have the query, and with it perhaps somebody's secrets; ours do not.
        | {"uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False}},
    }
