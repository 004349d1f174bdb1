"""
The stand-in's repositories, issues and comments, and what the demo starts with.
"""

from collections import Counter
from hashlib import sha1
from typing import Final

import msgspec

from fjmcp_broker.demo.forgejo.state import ForgejoState, User

DEFAULT_BRANCH: Final = "main"


class Label(msgspec.Struct):
    """
    A label of one repository.
    """

    id: int
    name: str
    color: str
    description: str = ""


class Comment(msgspec.Struct):
    """
    A comment on an issue or a pull request.
    """

    id: int
    author: User
    body: str
    created_at: int


class Issue(msgspec.Struct):
    """
    An issue, or a pull request when it has a head branch.
    """

    id: int
    index: int
    author: User
    title: str
    body: str
    created_at: int
    state: str = "open"
    head: str = ""
    base: str = ""
    is_merged: bool = False
    labels: list[Label] = msgspec.field(default_factory=list)
    comments: list[Comment] = msgspec.field(default_factory=list)

    @property
    def is_pull(self) -> bool:
        """
        @return: whether it is a pull request.
        """
        return bool(self.head)


class Commit(msgspec.Struct):
    """
    One change of a branch.
    """

    sha: str
    branch: str
    message: str
    author: User
    created_at: int


class Repository(msgspec.Struct):
    """
    A repository; each branch is a mapping of paths to contents.
    """

    id: int
    owner: User
    name: str
    description: str
    is_private: bool
    created_at: int
    branches: dict[str, dict[str, bytes]] = msgspec.field(default_factory=dict)
    commits: list[Commit] = msgspec.field(default_factory=list)
    issues: dict[int, Issue] = msgspec.field(default_factory=dict)
    labels: list[Label] = msgspec.field(default_factory=list)

    @property
    def full_name(self) -> str:
        """
        @return: owner and name with a slash between.
        """
        return f"{self.owner.login}/{self.name}"

    def is_visible_to(self, user: User | None) -> bool:
        """
        @param user: None for nobody in particular.
        """
        return not self.is_private or self.is_owned_by(user)

    def is_owned_by(self, user: User | None) -> bool:
        """
        @param user: None for nobody in particular.
        """
        return user is not None and user.id == self.owner.id


def content_digest(content: bytes) -> str:
    """
    @return: the name that Git would give to this content.
    """
    header = b"blob %d\0" % len(content)
    return sha1(header + content, usedforsecurity=False).hexdigest()


class World:
    """
    All repositories, with the operations that the API offers on them.
    """

    def __init__(self) -> None:
        self._ids: Counter[str] = Counter()
        self.repositories: dict[tuple[str, str], Repository] = {}

    def _new_id(self, kind: str) -> int:
        self._ids[kind] += 1
        return self._ids[kind]

    def find(self, owner: str, name: str) -> Repository | None:
        """
        @return: the repository; names ignore case.
        """
        return self.repositories.get((owner.lower(), name.lower()))

    def visible_to(self, user: User | None) -> list[Repository]:
        """
        @return: what a user may see, oldest first.
        """
        return [each for each in self.repositories.values() if each.is_visible_to(user)]

    def add_repository(
        self, owner: User, name: str, now: int, description: str = "", *, private: bool
    ) -> Repository:
        """
        @return: a new repository with a README and two labels.
        """
        repository = Repository(
            self._new_id("repository"), owner, name, description, private, now
        )
        repository.branches[DEFAULT_BRANCH] = {}
        self.repositories[(owner.login.lower(), name.lower())] = repository
        readme = f"# {name}\n\n{description}\n".encode()
        self.write_file(
            repository,
            DEFAULT_BRANCH,
            "README.md",
            readme,
            "Initial commit",
            owner,
            now,
        )
        for label, color in (("bug", "ee0701"), ("enhancement", "84b6eb")):
            repository.labels.append(Label(self._new_id("label"), label, color))
        return repository

    def write_file(
        self,
        repository: Repository,
        branch: str,
        path: str,
        content: bytes | None,
        message: str,
        author: User,
        now: int,
    ) -> Commit:
        """
        Change or remove one file of a branch.

        @param content: the new content; None removes the file.
        @return: the commit.
        """
        files = repository.branches[branch]
        if content is None:
            files.pop(path, None)
        else:
            files[path] = content
        seed = f"{repository.full_name} {branch} {len(repository.commits)} {message}"
        commit = Commit(content_digest(seed.encode()), branch, message, author, now)
        repository.commits.append(commit)
        return commit

    def add_issue(
        self,
        repository: Repository,
        author: User,
        title: str,
        body: str,
        now: int,
        *,
        head: str = "",
        base: str = "",
    ) -> Issue:
        """
        @param head: the branch of a pull request; empty for an issue.
        @return: the new issue, its index the next of the repository.
        """
        issue = Issue(
            self._new_id("issue"),
            len(repository.issues) + 1,
            author,
            title,
            body,
            now,
            head=head,
            base=base,
        )
        repository.issues[issue.index] = issue
        return issue

    def add_comment(self, issue: Issue, author: User, body: str, now: int) -> Comment:
        """
        @return: the new comment; its id is unique in the instance.
        """
        comment = Comment(self._new_id("comment"), author, body, now)
        issue.comments.append(comment)
        return comment

    def add_label(self, repository: Repository, name: str, color: str) -> Label:
        """
        @return: the new label.
        """
        label = Label(self._new_id("label"), name, color)
        repository.labels.append(label)
        return label

    def comment_with_id(
        self, repository: Repository, comment_id: int
    ) -> tuple[Issue, Comment] | None:
        """
        @return: a comment of this repository, with its issue.
        """
        for issue in repository.issues.values():
            for comment in issue.comments:
                if comment.id == comment_id:
                    return issue, comment
        return None


def demo_world(state: ForgejoState, now: int) -> World:
    """
    What the demo starts with: two repositories of each user, one of them private,
    with issues, a comment and a pull request.

    @param state: its first two users own everything.
    @param now: epoch seconds.
    """
    world = World()
    alice, bob = list(state.users.values())[:2]
    for owner, other, public, private in (
        (alice, bob, "hello", "notes"),
        (bob, alice, "website", "dotfiles"),
    ):
        repository = world.add_repository(
            owner, public, now, f"A public repository of {owner.login}", private=False
        )
        world.write_file(
            repository,
            DEFAULT_BRANCH,
            "src/hello.py",
            b'print("hello")\n',
            "Say hello",
            owner,
            now,
        )
        issue = world.add_issue(
            repository, other, "The greeting is too short", "Say it in a sentence.", now
        )
        issue.labels.append(repository.labels[1])
        world.add_comment(issue, owner, "Good idea, please send a change.", now)
        repository.branches["longer"] = dict(repository.branches[DEFAULT_BRANCH])
        world.write_file(
            repository,
            "longer",
            "src/hello.py",
            b'print("hello, how are you?")\n',
            "Say it in a sentence",
            other,
            now,
        )
        world.add_issue(
            repository,
            other,
            "Say it in a sentence",
            "Closes #1.",
            now,
            head="longer",
            base=DEFAULT_BRANCH,
        )
        secret = world.add_repository(
            owner, private, now, f"A private repository of {owner.login}", private=True
        )
        world.add_issue(
            secret, owner, "Nobody else sees this", "This repository is private.", now
        )
    return world
