"""Log lines: one event and its fields a line, JSON for programs or coloured for people.

Logging never raises, whatever the fields hold: a line that cannot be written must not end the work that it tells of.
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
    """Send log lines to a stream, from a level of LEVELS up; those of the libraries from warning up."""
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


class _Lines:
    """Writes lines to a stream; one that the stream does not take is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _write(self, line: str) -> None:
        with suppress(Exception):  # nobody reads it any more, its disk is full, or its encoding has no such character
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = fatal = msg = _write


# Without the values of local variables: among them are tokens, and what is in them may not even have a repr.
_tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def _json(logger: object, method: str, fields: EventDict) -> str:
    """The fields as a line of JSON."""
    try:
        return msgspec.json.encode(_tracebacks(logger, method, fields), enc_hook=str).decode()
    except Exception:  # noqa: BLE001  # lone surrogates, or a value that no encoder knows: the slow way takes everything
        return plain_json.dumps(texts.plain(fields))


class _Console:
    """The fields as a line for people; what would change the line or the terminal is escaped."""

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
