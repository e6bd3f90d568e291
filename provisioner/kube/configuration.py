"""Where the API server is, and the credentials: what the library's loaders fill in, by the names that they use.

The library's own class has these attributes among many others, and importing it imports its whole HTTP client.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Configuration:
    """The settings of one connection; the loaders set the attributes up to `refresh_api_key_hook`."""

    host: str = ""
    ssl_ca_cert: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_ssl: bool = True
    tls_server_name: str | None = None
    proxy: str | None = None
    api_key: dict[str, str] = field(default_factory=dict)
    refresh_api_key_hook: Callable[[Configuration], Awaitable[None] | None] | None = None
    """In a pod: reads the token's file again, at most once per minute."""

    # Read by the library's session.
    connection_pool_maxsize: int = 100
    client_session_kwargs: dict[str, Any] = field(default_factory=dict)
    disable_strict_ssl_verification: bool = False
    ca_cert_data: str | bytes | None = None
    proxy_headers: Any = None
    retries: int | None = None

    async def authorization(self) -> str:
        """Return the header with the credentials, as they are now; empty without a token.

        Raises what the library raises for a file that cannot be read.
        """
        if self.refresh_api_key_hook is not None:
            refreshed = self.refresh_api_key_hook(self)
            if inspect.isawaitable(refreshed):
                await refreshed
        # A token file can end in a newline, which is illegal in a header.
        return (self.api_key.get("BearerToken") or "").strip()
