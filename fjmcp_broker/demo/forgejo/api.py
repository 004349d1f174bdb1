"""
The stand-in's API: the instance, users and repositories, with real state.
"""

from klein import Klein, Response
from twisted.web.iweb import IRequest

from fjmcp_broker.demo.forgejo import http
from fjmcp_broker.demo.forgejo.api_contents import content_routes
from fjmcp_broker.demo.forgejo.api_issues import issue_routes
from fjmcp_broker.demo.forgejo.api_rest import everything_else
from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.http import json_answer, serve
from fjmcp_broker.demo.forgejo.router import (
    PREFIX,
    ApiCall,
    ApiError,
    Routes,
    identify,
    not_found,
    presented_token,
)
from fjmcp_broker.demo.forgejo.samples import Samples
from fjmcp_broker.demo.forgejo.shapes import Shapes
from fjmcp_broker.demo.forgejo.world import World

routes = Routes()


class Api:
    """
    C{/api/v1}.
    """

    app = Klein()

    def __init__(self, core: ForgejoCore, world: World) -> None:
        """
        @param core: state, clock and settings.
        @param world: the repositories.
        """
        self._core = core
        self._world = world
        self._shapes = Shapes(core)

    async def deliver(self, request: IRequest, response: Response) -> Response:
        """
        Pass an answer through the faults.
        """
        return await self._core.traffic.deliver(request, response)

    @serve(
        app,
        f"{PREFIX}/<path:rest>",
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    )
    def call(self, request: IRequest, rest: str) -> Response:
        """
        Check the token, then look for the route.
        """
        method, path = request.method.decode(), f"/{rest}"
        query = http.query(request)
        token = presented_token(http.header(request, "authorization"), query)
        try:
            user = identify(self._core, method, path, token)
            if user is not None:
                self._core.traffic.name_user(request, user.login)
            body = http.json_body(request)
            call = ApiCall(
                core=self._core,
                world=self._world,
                shapes=self._shapes,
                method=method,
                path=path,
                user=user,
                query=query,
                body=body,
            )
            for table in (issue_routes, routes, content_routes):
                found = table.find(method, path)
                if found is not None:
                    return found[0](call, **found[1])
            return everything_else(call)
        except ApiError as error:
            return json_answer(
                {
                    "message": error.message,
                    "url": self._core.url("/api/swagger"),
                },
                error.status,
            )


# The instance and its users


@routes.on("GET", "/version")
def version(call: ApiCall) -> Response:
    """
    Open to everybody, but not with a bad token.
    """
    return json_answer({"version": call.core.version})


@routes.on("GET", "/settings/api")
def settings(call: ApiCall) -> Response:
    """
    The limits of lists.
    """
    return json_answer(
        {
            "max_response_items": 50,
            "default_paging_num": 30,
            "default_git_trees_per_page": 1000,
            "default_max_blob_size": 10485760,
        }
    )


@routes.on("GET", "/user")
def me(call: ApiCall) -> Response:
    """
    The caller.
    """
    return json_answer(call.shapes.user(call.who()))


@routes.on("GET", "/user/orgs")
def my_organizations(call: ApiCall) -> Response:
    """
    The caller's organizations, those of private membership too; a sample for a user
    who has none.
    """
    user = call.who()
    names = [group for group in user.groups if ":" not in group]
    if not names:
        return everything_else(call)
    visible = call.world.visible_to(user)
    samples = [Samples(call, visible[0]).named("organization") for _ in names]
    return call.some(
        [
            sample | {"name": name, "username": name, "full_name": name.capitalize()}
            for sample, name in zip(samples, names, strict=True)
        ]
    )


@routes.on("GET", "/users/search")
def search_users(call: ApiCall) -> Response:
    """
    Users whose name has the keyword.
    """
    wanted = call.query.get("q", "").lower()
    found = [
        call.shapes.user(user)
        for user in call.core.state.users.values()
        if wanted in user.login or wanted in user.full_name.lower()
    ]
    return json_answer({"ok": True, "data": found})


@routes.on("GET", "/users/{login}")
def one_user(call: ApiCall, login: str) -> Response:
    """
    Somebody.
    """
    try:
        return json_answer(call.shapes.user(call.core.state.user_named(login)))
    except KeyError:
        raise not_found() from None


# Repositories


@routes.on("GET", "/user/repos")
def my_repositories(call: ApiCall) -> Response:
    """
    The caller's own repositories.
    """
    user = call.who()
    return call.some(
        [
            call.shapes.repository(each, user)
            for each in call.world.visible_to(user)
            if each.is_owned_by(user)
        ]
    )


@routes.on("GET", "/users/{login}/repos")
def repositories_of(call: ApiCall, login: str) -> Response:
    """
    Somebody's repositories, as far as the caller may see them.
    """
    return call.some(
        [
            call.shapes.repository(each, call.user)
            for each in call.world.visible_to(call.user)
            if each.owner.login == login
        ]
    )


@routes.on("GET", "/repos/search")
def search_repositories(call: ApiCall) -> Response:
    """
    Visible repositories whose name or description has the keyword.
    """
    wanted = call.query.get("q", "").lower()
    found = [
        call.shapes.repository(each, call.user)
        for each in call.world.visible_to(call.user)
        if wanted in each.name.lower() or wanted in each.description.lower()
    ]
    return json_answer({"ok": True, "data": found}, X_Total_Count=str(len(found)))


@routes.on("POST", "/user/repos")
def create_repository(call: ApiCall) -> Response:
    """
    A new repository of the caller.
    """
    user, name = call.who(), call.text("name")
    if call.world.find(user.login, name) is not None:
        raise ApiError(409, "The repository with the same name already exists.")
    repository = call.world.add_repository(
        user,
        name,
        call.core.now(),
        str(call.body.get("description", "")),
        private=bool(call.body.get("private")),
    )
    return json_answer(call.shapes.repository(repository, user), 201)


@routes.on("GET", "/repos/{owner}/{name}")
def one_repository(call: ApiCall, owner: str, name: str) -> Response:
    """
    One repository.
    """
    return json_answer(call.shapes.repository(call.repository(owner, name), call.user))
