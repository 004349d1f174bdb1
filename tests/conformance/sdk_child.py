"""
A child on the official Python SDK::

    python -m tests.conformance.sdk_child [--dual] [--record DIRECTORY]

It has the tools of the fixture child, but framing, dispatch, validation and writing
are the SDK's, with its own habits: another order of members, other errors, other ids.
Without C{--dual} it is of the time before 2026-07-28.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, Final, TextIO

import anyio
import anyio.from_thread
import anyio.to_thread
import mcp_types as types
from mcp.server import NotificationOptions
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_connection
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher

from tests.conformance.fixture import content, tools
from tests.conformance.fixture.call import Answer
from tests.conformance.fixture.legacy import LEVELS, RESOURCE_NOT_FOUND
from tests.conformance.fixture.wire import Message, RpcError
from tests.conformance.record import READ, WRITTEN, Recorder

Context = ServerRequestContext[Any]

_QUESTIONS: Final[dict[str, tuple[Any, Any]]] = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (
        types.CreateMessageRequest,
        types.CreateMessageResult,
    ),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}

_name_of_request: ContextVar[str | None] = ContextVar("name_of_request", default=None)


class _Tee:
    """One of the standard streams as text, every line of which is recorded."""

    def __init__(self, stream: TextIO, recorder: Recorder | None) -> None:
        self._text = io.TextIOWrapper(stream.buffer, encoding="utf-8", newline="\n")
        self._recorder = recorder

    def readline(self) -> str:
        line = self._text.readline()
        if line and self._recorder is not None:
            self._recorder.note(READ, line.rstrip("\n"))
        return line

    def write(self, text: str) -> int:
        if self._recorder is not None:
            self._recorder.note(WRITTEN, text.rstrip("\n"))
        return self._text.write(text)

    def flush(self) -> None:
        self._text.flush()


class _Dispatcher(JSONRPCDispatcher[Any]):
    """Gives questions the ids that the suite expects instead of numbers."""

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: Any = None,
        *,
        _related_request_id: Any = None,
    ) -> dict[str, Any]:
        name = _name_of_request.get()
        if name is not None:
            opts = {**(opts or {}), "request_id": name}
        return await super().send_raw_request(
            method, params, opts, _related_request_id=_related_request_id
        )


class SdkCall:
    """A request that a worker thread works on; see L{fixture.call.Call}."""

    def __init__(self, child: SdkChild, context: Context, arguments: Any) -> None:
        self.arguments: Message = dict(arguments or {})
        self._child = child
        self._context = context

    def _all(self, questions: dict[str, Message]) -> dict[str, Answer | MCPError]:
        answers: dict[str, Answer | MCPError] = {}

        async def one(name: str, question: Message) -> None:
            request, result = _QUESTIONS[question["method"]]
            _name_of_request.set(name)
            try:
                answer = await self._context.session.send_request(
                    request.model_validate(question), result
                )
            except MCPError as error:
                answers[name] = error
            else:
                answers[name] = answer.model_dump(
                    mode="json", by_alias=True, exclude_none=True
                )

        async def ask() -> None:
            async with anyio.create_task_group() as group:
                for name, question in questions.items():
                    group.start_soon(one, name, question)

        anyio.from_thread.run(ask)
        return answers

    def ask(self, questions: dict[str, Message]) -> dict[str, Answer]:
        answers = {}
        for name, answer in self._all(questions).items():
            if isinstance(answer, MCPError):
                raise answer
            answers[name] = answer
        return answers

    def ask_what_it_can(self, questions: dict[str, Message]) -> dict[str, Answer]:
        return {
            name: answer
            for name, answer in self._all(questions).items()
            if not isinstance(answer, MCPError)
        }

    def progress(self, progress: int, total: int) -> None:
        anyio.from_thread.run(self._context.session.report_progress, progress, total)

    def log(self, level: str, text: str) -> None:
        if LEVELS.index(level) < LEVELS.index(self._child.level):
            return
        note = types.LoggingMessageNotification.model_validate(
            {"params": {"level": level, "data": text}}
        )
        send = self._context.session.send_notification
        anyio.from_thread.run(send, note, self._context.request_id)

    def changed(self, what: str) -> None:
        session = self._context.session
        send: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "tools": session.send_tool_list_changed,
            "prompts": session.send_prompt_list_changed,
            "resources": session.send_resource_list_changed,
        }
        anyio.from_thread.run(send[what])


async def in_thread(work: Callable[[str, Any], Message], name: str, call: Any) -> Any:
    """
    Work on a request in a thread, from which it can ask and wait.

    @param work: takes a name and a call.
    @return: the result.
    @raise MCPError: the error that answers the request.
    """
    try:
        return await anyio.to_thread.run_sync(work, name, call)
    except RpcError as error:
        raise MCPError(error.code, error.message, error.data) from None


class SdkChild:
    """The handlers."""

    def __init__(self) -> None:
        self.level = "info"
        self.subscriptions: set[str] = set()
        self.server: Server[Any] = Server(
            "conformance-sdk",
            version="1.0.0",
            on_list_tools=self._list_tools,
            on_call_tool=self.call_tool,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self.get_prompt,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self.read,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_completion=self._complete,
        )
        self.server.add_request_handler(
            "logging/setLevel", types.SetLevelRequestParams, self._set_level
        )

    async def serve(self, read: Any, write: Any, started: Any) -> None:
        """
        Serve as the SDK did before it knew of eras: its own entry answers
        C{server/discover}, and takes no C{initialize} after it.

        @param read: the stream of messages that come in.
        @param write: the stream of those that go out.
        @param started: what the handshake says of the server.
        """
        async with self.server.lifespan(self.server) as state:
            dispatcher = _Dispatcher(
                read, write, inline_methods=frozenset({"initialize"})
            )
            await serve_connection(
                self.server,
                dispatcher,
                connection=Connection.for_loop(dispatcher),
                lifespan_state=state,
                init_options=started,
            )

    async def _list_tools(self, context: Context, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult.model_validate({"tools": tools.tools()})

    async def call_tool(self, context: Context, params: Any) -> types.CallToolResult:
        call = SdkCall(self, context, params.arguments)
        result = await in_thread(tools.run, params.name, call)
        return types.CallToolResult.model_validate(result)

    async def _list_prompts(
        self, context: Context, params: Any
    ) -> types.ListPromptsResult:
        return types.ListPromptsResult.model_validate({"prompts": content.prompts()})

    async def get_prompt(self, context: Context, params: Any) -> types.GetPromptResult:
        call = SdkCall(self, context, params.arguments)
        result = await in_thread(content.prompt, params.name, call)
        return types.GetPromptResult.model_validate(result)

    async def _list_resources(
        self, context: Context, params: Any
    ) -> types.ListResourcesResult:
        return types.ListResourcesResult.model_validate(
            {"resources": content.RESOURCES}
        )

    async def _list_templates(
        self, context: Context, params: Any
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult.model_validate(
            {"resourceTemplates": content.TEMPLATES}
        )

    async def read(self, context: Context, params: Any) -> types.ReadResourceResult:
        uri = str(params.uri)
        found = content.read(uri)
        if found is None:
            raise MCPError(RESOURCE_NOT_FOUND, "Resource not found", {"uri": uri})
        return types.ReadResourceResult.model_validate({"contents": [found]})

    async def _subscribe(self, context: Context, params: Any) -> types.EmptyResult:
        self.subscriptions.add(str(params.uri))
        return types.EmptyResult()

    async def _unsubscribe(self, context: Context, params: Any) -> types.EmptyResult:
        self.subscriptions.discard(str(params.uri))
        return types.EmptyResult()

    async def _complete(self, context: Context, params: Any) -> types.CompleteResult:
        result = content.completion(params.argument.value)
        return types.CompleteResult.model_validate(result)

    async def _set_level(self, context: Context, params: Any) -> types.EmptyResult:
        self.level = params.level
        return types.EmptyResult()


async def run(child: SdkChild, recorder: Recorder | None) -> None:
    """
    Serve until the end of the input.
    """
    # To anyio, what has these three methods is a file.
    tees: list[Any] = [_Tee(stream, recorder) for stream in (sys.stdin, sys.stdout)]
    streams = [anyio.wrap_file(tee) for tee in tees]
    options = NotificationOptions(
        prompts_changed=True, resources_changed=True, tools_changed=True
    )
    started = child.server.create_initialization_options(options)
    async with stdio_server(*streams) as (read, write):
        await child.serve(read, write, started)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dual", action="store_true")
    parser.add_argument("--record")
    options = parser.parse_args()
    recorder = Recorder(options.record, "sdk") if options.record else None
    if options.dual:
        # It imports more of the SDK, which the other one need not wait for.
        from tests.conformance.sdk_dual import DualSdkChild

        anyio.run(run, DualSdkChild(), recorder)
    else:
        anyio.run(run, SdkChild(), recorder)


if __name__ == "__main__":
    main()
