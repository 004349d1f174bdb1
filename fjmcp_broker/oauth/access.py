"""
Who may sign in: an optional list of Forgejo's users and organizations.
"""

from collections.abc import Iterable
from typing import Final, Self

import msgspec


class AccessRules(msgspec.Struct, frozen=True):
    """
    The list. Forgejo does not tell names apart by case, so neither does this.

    @ivar users: logins, case folded.
    @ivar groups: organizations, and C{organization:team} for one team of one, as
        Forgejo's userinfo names them, case folded.
    """

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, users: Iterable[str] = (), groups: Iterable[str] = ()) -> Self:
        """
        @param users: logins.
        @param groups: organizations and teams.
        @return: the rules.
        """
        return cls(
            frozenset(map(str.casefold, users)), frozenset(map(str.casefold, groups))
        )

    @property
    def let_everybody_in(self) -> bool:
        """
        Whether there is no list: whoever has an account at Forgejo may sign in.
        """
        return not self.users and not self.groups

    def allow(self, login: str, groups: Iterable[str]) -> bool:
        """
        @param login: the user's name at Forgejo now.
        @param groups: the user's organizations and teams now.
        @return: whether this user may sign in and go on.
        """
        return (
            self.let_everybody_in
            or login.casefold() in self.users
            or not self.groups.isdisjoint(map(str.casefold, groups))
        )


#: No list.
EVERYBODY: Final = AccessRules()
