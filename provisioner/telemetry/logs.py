"""Log lines: one event and its fields a line, JSON for programs or coloured for people."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import msgspec
import structlog
from structlog.typing import Processor

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(*, json: bool, level: str, stream: TextIO = sys.stderr) -> None:
    """Send log lines to a stream, from a level of LEVELS up; those of the libraries from warning up."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(_dumps)]
        if json
        else [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    )
    structlog.configure(
        processors=[*shared, _without_none, *render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, LEVELS[level]), force=True)


def _dumps(fields: object, **_: object) -> str:
    return msgspec.json.encode(fields, enc_hook=str).decode()


def _without_none(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: value for key, value in fields.items() if value is not None}
