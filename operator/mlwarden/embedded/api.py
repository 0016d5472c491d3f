"""A minimal blocking client of one API server, for what runs the embedded cluster and for what is tested on it from outside.

The product has its own asynchronous client (`mlwarden.cluster`). The throwaway cluster must not be started by the thing it is there to
test: a bug there would look like a broken cluster.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from mlwarden.errors import ClusterError

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(ClusterError):
    """An answer of 400 or more, or none.

    Attributes:
        code: the HTTP status; 0 when there was no answer.
        reason: the `reason` of the Status object, such as `NotFound`.
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Api:
    """Requests as one user. May be used from several threads at once; connections are kept and used again.

    Args:
        server: `https://host:port`.
        ca: path of the CA certificate of the server.
        token: the bearer token.
        timeout: seconds for one request; a watch may be silent for as long.
    """

    def __init__(self, *, server: str, ca: str, token: str, timeout: float = 30.0) -> None:
        address = urlsplit(server)
        self._host, self._port = address.hostname or "", address.port or 443
        self._context = ssl.create_default_context(cafile=ca)
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._timeout = timeout
        self._idle: list[http.client.HTTPSConnection] = []

    def request(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None, content_type: str = "application/json"
    ) -> Any:
        """Sends one request and returns the decoded answer (text where it is not JSON).

        Raises:
            ApiError: the server refused, or did not answer.
        """
        data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {**self._headers, **({"Content-Type": content_type} if data is not None else {})}
        try:
            connection, fresh = self._idle.pop(), False
        except IndexError:
            connection, fresh = self._connect(), True
        sent = False
        try:
            connection.request(method, target, data, headers)
            sent = True
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # The server closes connections that nobody used for a while: it did nothing with what could not even be sent.
            if not fresh and (method == "GET" or not sent or isinstance(error, http.client.RemoteDisconnected)):
                return self.request(method, path, body, query=query, content_type=content_type)
            raise ApiError(f"{method} {path}: no answer from the API server: {error}") from error
        self._idle.append(connection)
        return _decode(method, path, response.status, content)

    def get(self, path: str, **query: str) -> Any:
        """Reads one object or a list."""
        return self.request("GET", path, query=query)

    def create(self, path: str, body: Any, **query: str) -> Any:
        """Creates an object in the collection at this path."""
        return self.request("POST", path, body, query=query)

    def update(self, path: str, body: Any) -> Any:
        """Replaces an object, or with its subresource a part of it."""
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Any, *, content_type: str = MERGE_PATCH, **query: str) -> Any:
        """Patches an object, by merge patch unless said otherwise."""
        return self.request("PATCH", path, body, query=query, content_type=content_type)

    def apply(self, path: str, body: Any, *, manager: str = "mlwarden-embedded") -> Any:
        """Server-side apply, taking over conflicting fields."""
        return self.request("PATCH", path, body, query={"fieldManager": manager, "force": "true"}, content_type=APPLY_PATCH)

    def delete(self, path: str, body: Any = None, **query: str) -> Any:
        """Deletes an object or a collection."""
        return self.request("DELETE", path, body, query=query)

    def watch(self, path: str, *, seconds: int = 30, **query: str) -> Iterator[dict[str, Any]]:
        """Yields watch events until the server ends the watch, at the latest after `seconds`.

        Raises:
            ApiError: the watch could not be started (410 among the reasons), or broke.
        """
        target = f"{path}?{urlencode({**query, 'watch': 'true', 'timeoutSeconds': str(seconds)})}"
        connection = self._connect()
        try:
            connection.request("GET", target, headers=self._headers)
            response = connection.getresponse()
            if response.status >= 400:
                _decode("GET", path, response.status, response.read())
            for line in response:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(str(status.get("message")), code=status.get("code", 0), reason=status.get("reason", ""))
                yield event
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(f"watch {path}: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Closes the connections that are not in use; the client stays usable."""
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)


def _decode(method: str, path: str, status: int, content: bytes) -> Any:
    try:
        answer: Any = json.loads(content)
    except ValueError:
        answer = content.decode(errors="replace")
    if status >= 400:
        known = answer if isinstance(answer, dict) else {"message": answer}
        raise ApiError(f"{method} {path}: {known.get('message')}", code=status, reason=str(known.get("reason", "")))
    return answer
