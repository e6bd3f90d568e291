"""Log lines: one event with its fields per line, as JSON for programs or coloured for people.

Logging never raises, for any field: a line that cannot be written must not end the work that it reports.
"""

from __future__ import annotations

import json as plain_json
import logging
import sys
from contextlib import suppress
from typing import TextIO

import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

from provisioner.core import texts

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(*, json: bool, level: str, stream: TextIO = sys.stderr) -> None:
    """Write log lines to a stream, from a level of LEVELS up; lines of libraries from warning up."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = _json if json else _Console(colors=stream.isatty())
    structlog.configure(
        processors=[*shared, _without_none, render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, LEVELS[level]), force=True)


def is_json(log_format: str | None, stream: TextIO = sys.stderr) -> bool:
    """Return True if the log has JSON lines: by a format that was chosen, else unless the stream is a terminal."""
    return log_format == "json" or (log_format is None and not stream.isatty())


class _Lines:
    """Writes lines to a stream; drops lines that the stream refuses."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _write(self, line: str) -> None:
        # The reader is gone, the disk is full, or the encoding lacks a character.
        with suppress(Exception):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = fatal = msg = _write


# Without local variables: some are tokens, and some values have no working repr().
_tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def _json(logger: object, method: str, fields: EventDict) -> str:
    """Return the fields as one line of JSON."""
    try:
        return msgspec.json.encode(_tracebacks(logger, method, fields), enc_hook=str).decode()
    except Exception:  # noqa: BLE001  # lone surrogates, or an unknown type: the slow way accepts everything
        return plain_json.dumps(texts.plain(fields))


class _Console:
    """Renders the fields as one line for people; escapes control characters."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)

    def __call__(self, logger: object, method: str, fields: EventDict) -> str:
        try:
            safe = {key: texts.printable(value) if isinstance(value, str) else value for key, value in fields.items()}
            return texts.encodable(self._render(logger, method, safe))
        except Exception:  # noqa: BLE001  # a value whose repr() raises
            return texts.printable(plain_json.dumps(texts.plain(fields)))


def _without_none(_: object, __: str, fields: EventDict) -> EventDict:
    return {key: value for key, value in fields.items() if value is not None}
