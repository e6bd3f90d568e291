"""A small synchronous client for an API server, for tests: JSON over verified HTTPS."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON."""

MERGE_PATCH = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused a call.

    `status` is the HTTP status, `reason` the machine-readable reason.
    """

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Api:
    """A client of one API server as one user.

    Each call opens a connection of its own, so that a restart of the server breaks no later call.
    """

    def __init__(self, url: str, *, ca_file: Path, token: str, timeout_s: float = 30.0) -> None:
        """`ca_file` need not exist yet: the API server writes it at its first start."""
        self._url = url
        self._ca_file = ca_file
        self._token = token
        self._timeout_s = timeout_s

    def get(self, path: str, **query: str) -> Object:
        """Return the object at `path`.

        Raises ApiError for a response other than 2xx, OSError for none.
        """
        return self._call("GET", path, query=query)

    def list(self, path: str, **query: str) -> list[Object]:
        """Return the items of the collection at `path`."""
        items: list[Object] = self._call("GET", path, query=query)["items"]
        return items

    def post(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create `body` in the collection at `path`, and return the stored object."""
        return self._call("POST", path, body=body)

    def post_yaml(self, path: str, manifest: bytes) -> Object:
        """Create the object of a YAML manifest in the collection at `path`, and return the stored object."""
        return self._call("POST", path, body=manifest, content_type="application/yaml")

    def put(self, path: str, body: Mapping[str, Any]) -> Object:
        """Replace the object at `path`, and return the stored object."""
        return self._call("PUT", path, body=body)

    def patch(self, path: str, body: Any, *, content_type: str = MERGE_PATCH) -> Object:
        """Patch the object at `path`, by default with a JSON merge patch (RFC 7386)."""
        return self._call("PATCH", path, body=body, content_type=content_type)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> Object:
        """Delete the object at `path`; `body` can be DeleteOptions."""
        return self._call("DELETE", path, body=body)

    def watch(self, path: str, *, timeout_s: int = 10, **query: str) -> Iterator[Object]:
        """Yield the events of a watch on the collection at `path`.

        The server ends the watch after `timeout_s`.
        """
        query |= {"watch": "1", "timeoutSeconds": str(timeout_s)}
        with self._open("GET", path, query=query, timeout_s=timeout_s + 5.0) as answer:
            for line in answer:
                yield json.loads(line)

    def ready(self) -> bool:
        """Ask once whether the server is ready."""
        try:
            with self._open("GET", "/readyz", timeout_s=2.0):
                return True
        except (OSError, ApiError):
            return False

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        with self._open(method, path, query=query, body=body, content_type=content_type) as answer:
            try:
                decoded: Object = json.loads(answer.read())
            except http.client.HTTPException as exc:
                raise ConnectionError(
                    f"the response to {method} {path} is incomplete: the server closed the connection"
                ) from exc
            return decoded

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> Any:
        url = self._url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {self._token}"})
        if body is not None:
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
            # The answer comes in the format of the body otherwise.
            request.add_header("Accept", "application/json")
            request.add_header("Content-Type", content_type)
        context = ssl.create_default_context(cafile=str(self._ca_file))
        # Ignore proxies of the environment: the server is on loopback.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            return opener.open(request, timeout=timeout_s or self._timeout_s)
        except urllib.error.HTTPError as exc:
            with exc:
                raise _api_error(method, path, exc.code, exc.read()) from exc


def _api_error(method: str, path: str, status: int, body: bytes) -> ApiError:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {"message": body.decode(errors="replace")}
    message = f"{method} {path}: {status} {str(answer.get('message', ''))[:2000]}"
    return ApiError(message, status=status, reason=str(answer.get("reason", "")))
