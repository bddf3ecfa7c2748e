"""A service over HTTP: what may be asked, of whom and how much, and the words of its refusals."""

import asyncio
import hmac
import math
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Call
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from onward.errors import OnwardError
from onward.rows.serve.journal import Request
from onward.rows.serve.options import LOCAL, Serve
from onward.rows.serve.service import WAITING, Full, Service
from onward.rows.sources.jsonl import rows_of
from onward.saving import Unwritable

# Seconds for which a thread keeps Python to itself while another waits.
TURN = 2e-4
# Seconds for which it is waited for the whole of a request.
PATIENCE = 30.0
# Characters of a key, and callers whose rates are watched at a time.
LONGEST_KEY, WATCHED = 200, 10_000
SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """An answer that is none: a status and one line."""

    def __init__(self, status: int, text: str, **headers: str):
        super().__init__(text)
        self.status, self.headers = status, headers


class App:
    """The routes of a service."""

    def __init__(self, service: Service, serve: Serve):
        self.service, self.serve, self._token = service, serve, serve.token
        self._page = resources.files("onward.rows.serve").joinpath("page.html").read_text(encoding="utf-8")
        self._rates: dict[str, tuple[float, float]] = {}

    def routes(self) -> Starlette:
        """All of it, as ASGI."""
        guarded = {
            ("/rows", "POST"): self._rows,
            ("/ask", "POST"): self._ask,
            ("/state", "GET"): self._state,
            ("/metrics", "GET"): self._metrics,
        }
        routes = [Route(path, self._guard(answer), methods=[method]) for (path, method), answer in guarded.items()]
        app = Starlette(routes=[Route("/", self._home, methods=["GET"]), *routes])
        hosts = ["*"] if self.serve.host not in LOCAL else [*LOCAL, "[::1]"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
        return app

    def _guard(self, answer: Callable[[Call], Awaitable[Response]]) -> Callable[[Call], Awaitable[Response]]:
        async def guarded(call: Call) -> Response:
            try:
                self._require_token(call)
                self._require_rate(call)
                return await answer(call)
            except Refused as refused:
                return JSONResponse({"error": str(refused)}, refused.status, headers=refused.headers)
            except Full as error:
                return JSONResponse({"error": str(error)}, 429, headers={"Retry-After": "1"})
            except Unwritable as error:
                return JSONResponse({"error": f"{error.what}; nothing of this request was learned"}, 507)
            except OnwardError as error:
                return JSONResponse({"error": str(error)}, 503 if self.service.broken else 409)
            except ClientDisconnect:
                return Response(status_code=400)

        return guarded

    def _require_token(self, call: Call) -> None:
        if not self._token:
            return
        kind, _, said = call.headers.get("authorization", "").partition(" ")
        good = hmac.compare_digest(said.strip().encode("utf-8", "replace"), self._token.encode())
        if kind.lower() != "bearer" or not good:
            text = "send the token of this service: Authorization: Bearer TOKEN"
            raise Refused(401, text, **{"WWW-Authenticate": "Bearer"})

    def _require_rate(self, call: Call) -> None:
        most = self.serve.most_a_second
        if not most:
            return
        who, now = (call.client.host if call.client else ""), time.monotonic()
        left, then = self._rates.pop(who, (most, now))
        left = min(max(most, 1.0), left + (now - then) * most)
        if len(self._rates) >= WATCHED:
            self._rates.pop(next(iter(self._rates)))
        self._rates[who] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            wait = str(math.ceil((1 - left) / most))
            raise Refused(429, f"more than {most:g} requests a second: wait", **{"Retry-After": wait})

    async def _body(self, call: Call) -> bytes:
        most = self.serve.most_bytes
        text = f"the body is larger than {most:,} bytes: send fewer rows at a time (--most-bytes)"
        said = call.headers.get("content-length", "")
        if said.isdecimal() and int(said) > most:
            raise Refused(413, text, Connection="close")
        parts, size = [], 0
        async for part in call.stream():
            size += len(part)
            if size > most:
                raise Refused(413, text, Connection="close")
            parts.append(part)
        return b"".join(parts)

    async def _request(self, call: Call, *, empty: bool) -> Request:
        body = await self._body(call)
        key = call.headers.get("idempotency-key", "")
        if len(key) > LONGEST_KEY:
            raise Refused(400, f"Idempotency-Key has {len(key):,} characters, and may have {LONGEST_KEY}")
        if not body.strip() and empty:
            return Request("", [])
        try:
            rows = rows_of(body)
        except ValueError as error:
            raise Refused(400, str(error)) from None
        if not rows and not empty:
            raise Refused(400, "the body has no rows: send a JSON object, a list of them, or an object a line")
        return Request(key, rows)

    async def _rows(self, call: Call) -> Response:
        request = await self._request(call, empty=False)
        return await self._answered(request, learn=True)

    async def _ask(self, call: Call) -> Response:
        return await self._answered(await self._request(call, empty=True), learn=False)

    async def _answered(self, request: Request, *, learn: bool) -> Response:
        answers = await asyncio.shield(asyncio.wrap_future(self.service.ask(request, learn=learn)))
        return JSONResponse({"rows": answers})

    async def _state(self, call: Call) -> Response:
        return JSONResponse(self.service.state())

    async def _metrics(self, call: Call) -> Response:
        return PlainTextResponse(metrics(self.service.state()), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _home(self, call: Call) -> Response:
        nonce = os.urandom(16).hex()
        headers = {name: value.replace("{0}", nonce) for name, value in SAFE.items()}
        return Response(self._page.replace("NONCE", nonce), media_type="text/html", headers=headers)


def metrics(state: dict[str, Any]) -> str:
    """The state of a service as Prometheus reads it."""
    helps = {
        "rows": "Rows learned since the service started.",
        "asks": "Requests that were answered without learning.",
        "alarms": "Rows that were an alarm.",
        "shifts": "Rows at which a shift was found.",
        "again": "Requests that had been learned before.",
    }
    lines = []
    for name, text in helps.items():
        lines += [f"# HELP onward_{name}_total {text}", f"# TYPE onward_{name}_total counter"]
        lines.append(f"onward_{name}_total {state['counts'][name]}")
    lines += ["# HELP onward_rows_all Rows that the learner has learned in all.", "# TYPE onward_rows_all gauge"]
    lines.append(f"onward_rows_all {state['rows']}")
    lines += ["# HELP onward_up 1, or 0 where learning has ended by an error.", "# TYPE onward_up gauge"]
    lines.append(f"onward_up {0 if state['broken'] else 1}")
    lines += ["# HELP onward_mean_absolute_error Of all rows so far.", "# TYPE onward_mean_absolute_error gauge"]
    for target, errors in state["errors"].items():
        for by, value in errors.items():
            if by != "rows" and value == value:
                labels = f'target="{_label(target)}",by="{_label(by)}"'
                lines.append(f"onward_mean_absolute_error{{{labels}}} {value:.9g}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def listen(serve: Serve) -> socket.socket:
    """A socket that nobody else listens at; OnwardError where there is none."""
    family = socket.AF_INET6 if ":" in serve.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((serve.host, serve.port))
        found.listen(WAITING)
    except OSError as error:
        found.close()
        raise OnwardError(
            f"--host {serve.host} --port {serve.port}: {error.strerror or error}; choose another --port, or 0 for any"
        ) from error
    return found


class Patient(HttpToolsProtocol):
    """A connection that is closed where a whole request is not there in `PATIENCE` seconds: who says nothing, or a
    little now and then, must not take the place of others.
    """

    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._have()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request has begun."""
        self._have()
        self._wait()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """It is there; from then on the server waits as long as it likes."""
        self._have()
        super().on_message_complete()

    def _wait(self) -> None:
        self._waits = self.loop.call_later(PATIENCE, self.transport.close)

    def _have(self) -> None:
        if self._waits is not None:
            self._waits.cancel()


def run(service: Service, serve: Serve, place: socket.socket, began: Callable[[str], None]) -> None:
    """Answer until somebody ends it; then all that waits is answered, and what was learned kept."""
    config = uvicorn.Config(
        App(service, serve).routes(),
        http=Patient,
        log_level="critical",
        access_log=False,
        limit_concurrency=serve.most_connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=20,
        server_header=False,
        date_header=False,
        lifespan="off",
    )
    host, port = place.getsockname()[:2]
    began(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)  # the learner and who answers take turns
    try:
        uvicorn.Server(config).run(sockets=[place])
    finally:
        sys.setswitchinterval(before)
