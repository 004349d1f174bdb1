"""The session that children belong to, as they see it."""

import weakref

from fjmcp_broker.sessions.children.roles import ChildrenKeeper, Resident
from fjmcp_broker.sessions.errors import SessionGone


class Whose:
    """
    Leads from the children of a session back to it without keeping it. It has them,
    and a ring of the two would stay in memory, long after it was closed, until the
    garbage collector has looked at everything, which it seldom does.

    @ivar name: of the session, for the log.
    """

    def __init__(self, session: Resident, owner: ChildrenKeeper) -> None:
        """
        @param session: whose children they are. Each L{Attachment} keeps it.
        @param owner: the registry.
        """
        self.name = session.name
        self._session = weakref.ref(session)
        self._owner = owner

    @property
    def session(self) -> Resident:
        """
        @return: the session.
        @raise SessionGone: nobody has it any more.
        """
        session = self._session()
        if session is None:
            raise SessionGone("the session was closed")
        return session

    def changed(self) -> None:
        """Tell the registry that the session is needed now, or is not any more."""
        session = self._session()
        if session is not None:
            self._owner.session_changed(session)
