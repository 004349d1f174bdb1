"""The child on the official Python SDK as the SDK serves today: both eras."""

from __future__ import annotations

from typing import Any, Final

import anyio
import anyio.from_thread
import mcp_types as types
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError

from tests.conformance.fixture import content, tools
from tests.conformance.fixture.modern import (
    INVALID_PARAMS,
    MODERN,
    InputRequired,
    ModernCall,
    States,
)
from tests.conformance.fixture.wire import Message, RpcError
from tests.conformance.sdk_child import Context, SdkChild, in_thread

_EVENTS: Final[dict[str, Any]] = {
    "tools": ToolsListChanged,
    "prompts": PromptsListChanged,
    "resources": ResourcesListChanged,
}
_NOTIFICATIONS: Final[dict[str, Any]] = {
    "notifications/progress": types.ProgressNotification,
    "notifications/message": types.LoggingMessageNotification,
}


class _Outlet:
    """What a request says besides its answer, from its worker thread."""

    def __init__(self, context: Context, bus: InMemorySubscriptionBus) -> None:
        self._context = context
        self._bus = bus

    def notify(self, method: str, params: Message) -> None:
        note = _NOTIFICATIONS[method].model_validate({"params": params})
        send = self._context.session.send_notification
        anyio.from_thread.run(send, note, self._context.request_id)

    def changed(self, what: str) -> None:
        anyio.from_thread.run(self._bus.publish, _EVENTS[what]())


class DualSdkChild(SdkChild):
    """The handlers, for requests of both eras."""

    def __init__(self) -> None:
        super().__init__()
        self._states = States()
        self._bus = InMemorySubscriptionBus()
        self.server.add_request_handler(
            "subscriptions/listen",
            types.SubscriptionsListenRequestParams,
            ListenHandler(self._bus),
        )

    async def serve(self, read: Any, write: Any, started: Any) -> None:
        await self.server.run(read, write, started)

    async def _work(self, context: Context, work: Any, name: str) -> Any:
        """
        @return: the result of a modern request, as JSON; or the questions.
        """
        assert context.params is not None
        outlet = _Outlet(context, self._bus)
        try:
            call = ModernCall(
                self._states, outlet, context.method, dict(context.params)
            )
            return await in_thread(work, name, call)
        except RpcError as error:
            raise MCPError(error.code, error.message, error.data) from None
        except InputRequired as required:
            return types.InputRequiredResult.model_validate(
                {"inputRequests": required.requests, "requestState": required.state}
            )

    async def call_tool(self, context: Context, params: Any) -> Any:
        if context.protocol_version != MODERN:
            return await super().call_tool(context, params)
        result = await self._work(context, tools.run, params.name)
        if isinstance(result, types.InputRequiredResult):
            return result
        return types.CallToolResult.model_validate(result)

    async def get_prompt(self, context: Context, params: Any) -> Any:
        if context.protocol_version != MODERN:
            return await super().get_prompt(context, params)
        result = await self._work(context, content.prompt, params.name)
        if isinstance(result, types.InputRequiredResult):
            return result
        return types.GetPromptResult.model_validate(result)

    async def read(self, context: Context, params: Any) -> types.ReadResourceResult:
        try:
            return await super().read(context, params)
        except MCPError as error:
            if context.protocol_version != MODERN:
                raise
            # The number of the older revisions is gone.
            raise MCPError(INVALID_PARAMS, error.message, error.data) from None
