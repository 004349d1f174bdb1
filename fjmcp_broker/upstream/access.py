"""
Whether a user is still on the list of those who may sign in.

Forgejo says who the user is and to which organizations the user belongs, at the
sign-in and after every refresh. A token set is handed out only once this process has
judged its user by it, so a changed list counts from the next start on, and somebody
who was taken out of an organization is out with the next refresh.
"""

from twisted.logger import Logger

from fjmcp_broker.oauth.access import AccessRules
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from .errors import IdentityMismatch, NotAllowed, UpstreamUnavailable
from .interfaces import IForgejo, Release, UserInfo
from .keeper import Keeper
from .tasks import Task, Tasks


class AccessGate:
    """
    Judges users. Without a list it lets everybody pass and asks nothing.
    """

    _log = Logger()

    def __init__(
        self, rules: AccessRules, keeper: Keeper, forgejo: IForgejo, tasks: Tasks
    ) -> None:
        """
        @param rules: the list.
        @param keeper: suspends and releases token sets.
        @param forgejo: is asked about users.
        @param tasks: where the questions run.
        """
        self._rules = rules
        self._keeper = keeper
        self._forgejo = forgejo
        self._tasks = tasks
        self._admitted: dict[int, bytes] = {}
        self._questions: dict[int, Task[None]] = {}

    def has_admitted(self, tokens: UpstreamSet) -> bool:
        """
        @param tokens: a set of some user.
        @return: whether its user was judged by this very set and may go on.
        """
        return (
            self._rules.let_everybody_in
            or self._admitted.get(tokens.user_id) == tokens.refresh_digest
        )

    def ask(self, tokens: UpstreamSet) -> Task[None]:
        """
        Ask Forgejo about the user of a set; once for all who want to know.

        @param tokens: the user's.
        @return: the question, which fails as L{AccessGate.judge} does, with
            L{SignInNeeded} or L{UpstreamUnavailable}.
        """
        running = self._questions.get(tokens.user_id)
        if running is not None:
            return running
        task = self._tasks.start(
            self._ask(tokens), f"asking whether user {tokens.user_id} is allowed"
        )
        if not task.is_done:
            self._questions[tokens.user_id] = task
        return task

    @property
    def moment(self) -> int:
        """
        @return: to be taken before Forgejo is asked about a user, for the judgement.
        """
        return self._keeper.refusal

    async def judge(
        self, tokens: UpstreamSet, user: UserInfo, asked_at: int
    ) -> Release | None:
        """
        Judge a user. Whoever is not allowed has the set suspended: nothing is
        deleted.

        @param tokens: the user's, committed.
        @param user: as Forgejo says, asked with this very set.
        @param asked_at: L{AccessGate.moment} from before that.
        @return: makes the user's set usable, which it is not; C{None}: it is.
        @raise NotAllowed: the user is not on the list.
        @raise UpstreamUnavailable: the user, or the stored set, has been refused since
            Forgejo was asked, which may have answered before.
        @raise StoreError: the judgement could not be written.
        """
        if self._rules.let_everybody_in:
            return None
        if not self._rules.allow(user.login, user.groups):
            self._admitted.pop(user.user_id, None)
            self._log.warn(
                "user {user_id} is not among those who may sign in",
                user_id=user.user_id,
            )
            await self._keeper.suspend(tokens, is_judgement=True)
            raise NotAllowed(user.login)
        if self._keeper.has_refused(user.user_id, asked_at):
            raise UpstreamUnavailable("what Forgejo said of the user may be outdated")
        release = await self._keeper.admit(user.user_id, asked_at)
        self._admitted[user.user_id] = tokens.refresh_digest
        return release

    async def _ask(self, tokens: UpstreamSet) -> None:
        try:
            asked_at = self.moment
            user = await self._forgejo.userinfo(tokens.access_token)
            if user.user_id != tokens.user_id:
                await self._keeper.suspend(tokens)
                raise IdentityMismatch("Forgejo takes the user for somebody else")
            release = await self.judge(tokens, user, asked_at)
            if release is not None:
                await self._keeper.release(release)
        finally:
            self._questions.pop(tokens.user_id, None)
