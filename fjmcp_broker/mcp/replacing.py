"""One value of an object in the place of another, and every other byte as before."""

from fjmcp_broker.mcp import scanner


def with_progress_token(params: bytes, token: bytes) -> bytes:
    """
    @param params: raw params of a request that names C{_meta.progressToken}.
    @param token: raw JSON that takes its place.
    @return: the params, every other byte as before.
    @raise KeyError: when there is no such token.
    """
    start, end = scanner.value_span(params, "_meta")
    meta = with_member(params[start:end], "progressToken", token)
    return b"".join((params[:start], meta, params[end:]))


def with_member(params: bytes, name: str, value: bytes) -> bytes:
    """
    @param params: a raw JSON object.
    @param name: the name of a member that it has, such as C{requestId}.
    @param value: raw JSON that takes the place of the member's value.
    @return: the object, every other byte as before.
    @raise KeyError: when there is no such member.
    """
    start, end = scanner.value_span(params, name)
    return b"".join((params[:start], value, params[end:]))


def with_request_id(params: bytes, id: bytes) -> bytes:
    """
    @param params: raw params of a C{notifications/cancelled}.
    @param id: raw JSON that takes the place of C{requestId}.
    @return: the params, every other byte as before.
    @raise KeyError: when there is no such member.
    """
    return with_member(params, "requestId", id)
