"""
Timing: secrets are compared in constant time, or looked up by their digest.

A lookup by SHA-256 tells nothing of use by the time that it takes: whoever measures it
learns of the digest, and cannot choose one. Everything else is compare_digest.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.test_architecture import PACKAGE, TOP, modules

SECRET = re.compile(
    r"(^|_)(secret|token|verifier|cookie|challenge|hmac|tag|password|signature|digest"
    r"|nonce)$"
)

#: Module and source of a comparison that is no test of a secret, and why.
HARMLESS = {
    (
        "services.py",
        "p.token_digest == token_digest",
    ): "both are digests of tokens that were found in the store",
    (
        "upstream/access.py",
        "self._admitted.get(tokens.user_id) == tokens.refresh_digest",
    ): "both come from our own store",
    (
        "upstream/tokens.py",
        "current.refresh_token == spent.refresh_token",
    ): "both come from our own store",
    (
        "upstream/tokens.py",
        "spent.refresh_token != seen.refresh_token",
    ): "both come from our own store",
    (
        "upstream/tokens.py",
        "text != tokens.access_token",
    ): "both come from our own store",
    (
        "web/bearer.py",
        "principal.token_digest == token_digest",
    ): "the token was found by its digest in the store before",
    (
        "mcp/modern/request_state.py",
        "state.digest != digest_of(request)",
    ): "the state was sealed by us, and a digest of params is no secret",
    (
        "sessions/list_changed.py",
        "self.lists.get(request.method) != digest",
    ): "of a list of tools",
    (
        "sessions/list_changed.py",
        "self.lists.get(method, digest) == digest",
    ): "of a list of tools",
}


def comparisons(tree: ast.Module) -> Iterator[ast.Compare]:
    """
    @param tree: of a module.
    @return: what tests for equality with something that is named like a secret.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(
            isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops
        ):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Constant) for side in sides):
                continue
            if any(SECRET.search(name_of(side)) for side in sides):
                yield node


def name_of(side: ast.expr) -> str:
    """
    @param side: of a comparison.
    @return: the last name in it.
    """
    if isinstance(side, ast.Call):
        return name_of(side.func)
    if isinstance(side, ast.Attribute):
        return side.attr
    return side.id if isinstance(side, ast.Name) else ""


class TimingTests(SynchronousTestCase):
    """Where secrets are checked."""

    def test_no_secret_is_compared_with_equals(self) -> None:
        """Every == with something named like a secret is known, and harmless."""
        found = {}
        for path, tree in modules(PACKAGE):
            where = str(path.relative_to(TOP / PACKAGE))
            if where.startswith(("demo/", "config/")):
                continue
            for node in comparisons(tree):
                found[where, ast.unparse(node)] = node.lineno
        self.assertEqual(set(found) - set(HARMLESS), set(), found)
        self.assertEqual(set(HARMLESS) - set(found), set(), "no longer there")

    def test_secrets_are_compared_in_constant_time(self) -> None:
        """Client secrets and PKCE verifiers, Forgejo's tokens, form tokens."""
        for module in ("oauth/tokens.py", "secret.py", "web/oauth/cookies.py"):
            text = Path(TOP, PACKAGE, module).read_text(encoding="utf-8")
            self.assertIn("compare_digest(", text, module)
