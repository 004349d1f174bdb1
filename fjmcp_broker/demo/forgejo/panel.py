"""
The controls of the stand-in Forgejo over HTTP, for a demo in another process.
"""

from collections.abc import Callable
from hmac import compare_digest
from typing import Any, Final

from klein import Response
from msgspec.structs import asdict

from fjmcp_broker.demo.forgejo.controls import Controls
from fjmcp_broker.demo.forgejo.faults import Fault
from fjmcp_broker.demo.forgejo.http import json_answer

PREFIX: Final = "/-/controls/"

# What may be called, each with the members of a JSON object as its arguments.
ACTIONS: Final = (
    "bad_gateway",
    "delay",
    "delete_application",
    "delete_user",
    "disable_user",
    "drop_answer",
    "end_faults",
    "forget_requests",
    "hold_answer",
    "hold_request",
    "invalidate_refresh_tokens",
    "lose_code_race",
    "lose_counter_race",
    "regenerate_secret",
    "revoke_grant",
    "rotate_signing_key",
    "set_issuer_slash",
    "set_lifetimes",
    "set_message_style",
    "set_version",
)


class Panel:
    """
    Reachable only by who knows the key; without a key it does not exist.
    """

    def __init__(self, controls: Controls, key: str | None) -> None:
        """
        @param controls: what it controls.
        @param key: a random text; None or empty for no panel at all.
        """
        self._controls = controls
        self._key = key or ""

    def is_for(self, path: str) -> bool:
        """
        @param path: below the base path.
        @return: whether the request is for the panel, with the right key.
        """
        if not self._key or not path.startswith(PREFIX):
            return False
        presented = path.removeprefix(PREFIX).split("/")[0]
        return compare_digest(presented.encode(), self._key.encode())

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Response:
        """
        C{GET requests} answers the record, C{POST name} calls a control.
        """
        name = path.removeprefix(PREFIX).partition("/")[2]
        if method == "GET" and name == "requests":
            return json_answer([asdict(each) for each in self._controls.requests])
        if method != "POST" or name not in ACTIONS:
            return json_answer({"message": "no such control"}, 404)
        control: Callable[..., object] = getattr(self._controls, name)
        try:
            result = control(**body)
        except (KeyError, TypeError, ValueError) as error:
            return json_answer({"message": repr(error)}, 422)
        return json_answer({"result": None if isinstance(result, Fault) else result})
