"""
Small HTTP helpers of the stand-in Forgejo: answers, parameters, routes.
"""

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from html import escape
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, cast
from urllib.parse import parse_qs, urlencode, urlsplit

from klein import Klein, Response
from twisted.web.iweb import IRequest

JSON_TYPE: Final = "application/json;charset=utf-8"
STYLE: Final = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { max-width: 36rem; margin: 2rem auto; padding: 0 1rem; }
input { font: inherit; padding: .4rem; width: 100%; box-sizing: border-box; }
button { font: inherit; padding: .5rem 1rem; margin: .75rem .5rem 0 0; }
label { display: block; margin-top: .75rem; }
code { overflow-wrap: anywhere; } .error { color: #c33; } td { padding-right: 1rem; }
"""

HeaderValue = str | bytes | Sequence[str | bytes]

P = ParamSpec("P")


class Delivers(Protocol):
    """
    An object with routes, whose answers go through the faults.
    """

    async def deliver(self, request: IRequest, response: Response) -> Response:
        """
        Hold back, drop or pass on an answer.
        """


S = TypeVar("S", bound=Delivers)


def serve(
    app: Klein, path: str, *methods: str
) -> Callable[
    [Callable[Concatenate[S, IRequest, P], Response]],
    Callable[Concatenate[S, IRequest, P], Coroutine[Any, Any, Response]],
]:
    """
    Route C{path} to a handler that returns its whole answer, so that a fault can
    hold or drop the answer after the handler has done its work.

    @param app: the Klein application.
    @param path: a Werkzeug path pattern.
    @param methods: the HTTP methods.
    """

    def decorate(
        handler: Callable[Concatenate[S, IRequest, P], Response],
    ) -> Callable[Concatenate[S, IRequest, P], Coroutine[Any, Any, Response]]:
        async def route(
            self: S, request: IRequest, /, *args: P.args, **kwargs: P.kwargs
        ) -> Response:
            return await self.deliver(request, handler(self, request, *args, **kwargs))

        route.__name__ = f"{handler.__name__}_{len(app.endpoints)}"
        # Klein's type for handlers does not know handlers on a class.
        app.route(path, methods=list(methods))(cast(Any, route))
        return route

    return decorate


def _named(headers: Mapping[str, str]) -> dict[str | bytes, HeaderValue]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def json_answer(value: Any, status: int = 200, **headers: str) -> Response:
    """
    @param value: any JSON value.
    @return: the answer; underscores in header names become dashes.
    """
    named = _named(headers)
    named["Content-Type"] = JSON_TYPE
    return Response(status, named, json.dumps(value).encode())


def text_answer(text: str, status: int = 200, **headers: str) -> Response:
    """
    @return: a plain text answer.
    """
    named = _named(headers)
    named["Content-Type"] = "text/plain;charset=utf-8"
    return Response(status, named, text.encode())


def page(title: str, body: str, status: int = 200, **headers: str) -> Response:
    """
    @param title: plain text.
    @param body: HTML, escaped by the caller.
    @return: a whole HTML page.
    """
    html = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>{body}"
        "<hr><p><small>This is the stand-in Forgejo of the fjmcp-broker demo."
        "</small></p></html>"
    )
    named = _named(headers)
    named["Content-Type"] = "text/html; charset=utf-8"
    named["Cache-Control"] = "no-store"
    return Response(status, named, html.encode())


def redirect(location: str, **headers: str) -> Response:
    """
    @return: a 303 answer, the only kind of redirect that Forgejo uses.
    """
    named = _named(headers)
    named["Location"] = location
    return Response(303, named, b"")


def with_parameters(uri: str, parameters: dict[str, str]) -> str:
    """
    @return: C{uri} with the parameters merged into its query, sorted by name.
    """
    parts = urlsplit(uri)
    merged = {
        name: values[0]
        for name, values in parse_qs(parts.query, keep_blank_values=True).items()
    }
    merged.update(parameters)
    return parts._replace(query=urlencode(sorted(merged.items()))).geturl()


def query(request: IRequest) -> dict[str, str]:
    """
    @return: the parameters of the query, the first of each name.
    """
    target = request.uri.decode("utf-8", "replace")
    return _first(urlsplit(target).query)


def form(request: IRequest) -> dict[str, str]:
    """
    @return: the parameters of a form or JSON body; empty when it is neither.
    """
    if header(request, "content-type").startswith("application/json"):
        value = json_body(request)
        return {
            name: member for name, member in value.items() if isinstance(member, str)
        }
    return _first(_body(request).decode("utf-8", "replace"))


def json_body(request: IRequest) -> dict[str, Any]:
    """
    @return: the JSON object of the body; empty when it is none.
    """
    try:
        value = json.loads(_body(request) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _body(request: IRequest) -> bytes:
    content = request.content
    if content is None:
        return b""
    content.seek(0)
    body: bytes = content.read()
    return body


def _first(encoded: str) -> dict[str, str]:
    parsed: dict[str, Sequence[str]] = dict(parse_qs(encoded, keep_blank_values=True))
    return {name: values[0] for name, values in parsed.items()}


def header(request: IRequest, name: str) -> str:
    """
    @return: the value of a request header, empty when absent.
    """
    return request.getHeader(name) or ""
