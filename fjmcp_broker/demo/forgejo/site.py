"""
The stand-in's pages of repositories and issues, so that links in answers lead
somewhere and people see what their tools did.
"""

from html import escape

from klein import Klein, Response
from twisted.web.iweb import IRequest

from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.http import page, serve, text_answer
from fjmcp_broker.demo.forgejo.sessions import BrowserSessions
from fjmcp_broker.demo.forgejo.world import Issue, Repository, World


class SitePages:
    """
    The home page, repositories, issues and attachments.
    """

    app = Klein()

    def __init__(self, core: ForgejoCore, world: World) -> None:
        """
        @param core: state and base URL.
        @param world: the repositories.
        """
        self._core = core
        self._world = world
        self._sessions = BrowserSessions(core)

    async def deliver(self, request: IRequest, response: Response) -> Response:
        """
        Pass an answer through the faults.
        """
        return await self._core.traffic.deliver(request, response)

    def _link(self, path: str, text: str) -> str:
        return f'<a href="{escape(self._core.url(path))}">{escape(text)}</a>'

    @serve(app, "/", "GET", "HEAD")
    def home(self, request: IRequest) -> Response:
        """
        Who is signed in, and what this person may see.
        """
        user = self._sessions.user(request)
        if user is None:
            return self._sessions.sign_in_first(request)
        items = "".join(
            f"<li>{self._link(f'/{each.full_name}', each.full_name)}"
            f"{' (private)' if each.is_private else ''}</li>"
            for each in self._world.visible_to(user)
        )
        return page(
            "Stand-in Forgejo",
            f"<p>Signed in as <b>{escape(user.login)}</b>.</p><ul>{items}</ul>"
            f"<p>{self._link('/user/settings/applications', 'Applications')} "
            f"{self._link('/user/logout', 'Sign out')}</p>",
        )

    def _find(self, request: IRequest, owner: str, name: str) -> Repository | None:
        repository = self._world.find(owner, name)
        user = self._sessions.user(request)
        if repository is None or not repository.is_visible_to(user):
            return None
        return repository

    @serve(app, "/<owner>/<name>", "GET", "HEAD")
    def repository(self, request: IRequest, owner: str, name: str) -> Response:
        """
        Branches, files and issues of a repository.
        """
        repository = self._find(request, owner, name)
        if repository is None:
            return _nothing_here()
        issues = "".join(
            f"<li>{self._issue_link(repository, issue)} ({escape(issue.state)})</li>"
            for issue in reversed(repository.issues.values())
        )
        files = "".join(
            f"<li><code>{escape(path)}</code> on {escape(branch)}</li>"
            for branch, content in repository.branches.items()
            for path in sorted(content)
        )
        return page(
            repository.full_name,
            f"<p>{escape(repository.description)}</p>"
            f"<h2>Issues and pull requests</h2><ul>{issues}</ul>"
            f"<h2>Files</h2><ul>{files}</ul>",
        )

    def _issue_link(self, repository: Repository, issue: Issue) -> str:
        kind = "pulls" if issue.is_pull else "issues"
        path = f"/{repository.full_name}/{kind}/{issue.index}"
        return self._link(path, f"#{issue.index} {issue.title}")

    @serve(app, "/<owner>/<name>/<any(issues,pulls):kind>/<int:index>", "GET", "HEAD")
    def issue(
        self, request: IRequest, owner: str, name: str, kind: str, index: int
    ) -> Response:
        """
        An issue with its comments.
        """
        repository = self._find(request, owner, name)
        issue = repository.issues.get(index) if repository else None
        if repository is None or issue is None:
            return _nothing_here()
        comments = "".join(
            f"<p><b>{escape(each.author.login)}</b>: {escape(each.body)}</p>"
            for each in issue.comments
        )
        labels = ", ".join(escape(each.name) for each in issue.labels)
        return page(
            f"#{issue.index} {issue.title}",
            f"<p>{self._link(f'/{repository.full_name}', repository.full_name)}, "
            f"{escape(issue.state)}. {labels}</p>"
            f"<p><b>{escape(issue.author.login)}</b>: {escape(issue.body)}</p>"
            f"{comments}",
        )

    @serve(app, "/<owner>/<name>/raw/branch/<branch>/<path:path>", "GET", "HEAD")
    def raw(
        self, request: IRequest, owner: str, name: str, branch: str, path: str
    ) -> Response:
        """
        The content of a file.
        """
        repository = self._find(request, owner, name)
        content = repository and repository.branches.get(branch, {}).get(path)
        if not content:
            return _nothing_here()
        return text_answer(content.decode("utf-8", "replace"))

    @serve(app, "/attachments/<uuid>", "GET", "HEAD")
    def attachment(self, request: IRequest, uuid: str) -> Response:
        """
        The one file that all attachments of the stand-in have.
        """
        return text_answer("hello\n")


def _nothing_here() -> Response:
    return page("Not found", "<p>There is nothing here, or not for you.</p>", 404)
