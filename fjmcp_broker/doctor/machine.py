"""
What the daemon needs of the machine that it runs on: the child's program, the store.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from fjmcp_broker.config import Config
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.forgejo_scopes import granted_equivalent
from fjmcp_broker.preflight import child_program, child_settings, tls_options
from fjmcp_broker.store import instance as instances
from fjmcp_broker.store import migrations
from fjmcp_broker.store.errors import StoreError, StoreRefused
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.keys import key_path, load_or_create_keys
from fjmcp_broker.store.resealing import key_ids_in_use
from fjmcp_broker.store.sealing import Sealer

from .findings import Finding, failed, ok, skipped, warning

LEAST_FREE_BYTES: Final = 200 * 2**20
_HELPER: Final = "setpriv"
_MOST_VERSION_CHARACTERS: Final = 80


class MachineChecks:
    """
    Looks at this machine.
    """

    def __init__(self, config: Config, timeout_seconds: float) -> None:
        """
        @param config: checked.
        @param timeout_seconds: for the child's program to say its version.
        """
        self._config = config
        self._timeout_seconds = timeout_seconds

    def run(self) -> Iterator[Finding]:
        """
        @return: what there is to say.
        """
        yield self.child()
        yield self.helpers()
        yield self.tls()
        store = self.store()
        yield store
        if store.status in ("ok", "warning"):
            yield self.users()
        yield self.disk()

    def child(self) -> Finding:
        """
        @return: whether the child's program runs, and its version.
        """
        name = "child"
        try:
            program = child_program(self._config)
            child_settings(self._config)
        except BrokerError as error:
            return failed(
                name,
                str(error),
                "Install forgejo-mcp, or name its path in FORGEJO_MCP_BINARY or "
                "child.command.",
            )
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own program
                [program, "--version"],
                capture_output=True,
                timeout=self._timeout_seconds,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        except subprocess.TimeoutExpired:
            return failed(
                name,
                f"{program} --version does not end",
                "See that child.command names an MCP server that can be asked for its "
                "version.",
            )
        except OSError as error:
            return failed(
                name,
                f"{program} cannot be run: {error.strerror}",
                "Install the build for this machine's processor and operating system.",
            )
        text = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
        first = "".join(c for c in text.partition("\n")[0] if c.isprintable())
        shown = first[:_MOST_VERSION_CHARACTERS] or "nothing"
        if done.returncode != 0:
            return warning(
                name,
                f"{program} --version ended with {done.returncode} and said {shown}",
                "If this is forgejo-mcp, install it again; other MCP servers may not "
                "know that option.",
            )
        return ok(name, f"{program} says: {shown}")

    def helpers(self) -> Finding:
        """
        @return: whether children can be started with all protection.
        """
        if shutil.which(_HELPER) is None:
            return warning(
                "helpers",
                f"not on PATH: {_HELPER}; children would outlive a killed daemon",
                "Install util-linux.",
            )
        return ok("helpers", "children end with the daemon, even if it is killed")

    def tls(self) -> Finding:
        """
        @return: whether certificate and key of C{server.tls} can be used.
        """
        try:
            options = tls_options(self._config)
        except BrokerError as error:
            return failed("tls", str(error), "Give the daemon a pair that fits.")
        if options is None:
            return skipped("tls", "the daemon speaks plain HTTP to the reverse proxy")
        return ok("tls", "certificate and key fit")

    def store(self) -> Finding:
        """
        @return: whether the store can be used with these keys. Nothing is changed.
        """
        name = "store"
        path = self._config.database.path
        if not Path(path).exists():
            return warning(
                name,
                f"there is no store at {path} yet",
                "The daemon makes it when it starts; if there was one, correct "
                "database.path.",
            )
        try:
            with closing(_reader(path)) as connection:
                problem = self._store_problem(connection)
        except (sqlite3.Error, StoreError) as error:
            problem = str(error)
        if problem is not None:
            return failed(
                name,
                f"{path}: {problem}",
                "Correct the configuration, or restore a backup with its key.",
            )
        loose = [
            each
            for each in (path, key_path(path))
            if Path(each).exists() and Path(each).stat().st_mode & 0o077
        ]
        if loose:
            return warning(
                name,
                f"others on this machine can read {', '.join(loose)}",
                f"Run chmod 600 {' '.join(loose)}",
            )
        return ok(name, f"{path} is whole, and its key is there")

    def _store_problem(self, connection: sqlite3.Connection) -> str | None:
        config = self._config
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            return "it is damaged"
        if not migrations.check(connection):
            return None
        instances.check(
            connection, Instance(config.forgejo.url, config.forgejo.oauth_client_id)
        )
        needed = key_ids_in_use(connection)
        if needed:
            keys = load_or_create_keys(
                config.database.path,
                config.database.encryption_keys,
                store_has_sealed_rows=True,
            )
            missing = needed - Sealer(keys).key_ids
            if missing:
                ids = ", ".join(sorted(each.hex() for each in missing))
                return f"values are sealed with a key that is not there (id {ids})"
        return None

    def users(self) -> Finding:
        """
        @return: whether the users' grants in Forgejo are what is asked for now.
        """
        name = "users"
        wanted = self._config.forgejo.oauth_scopes
        try:
            with closing(_reader(self._config.database.path)) as connection:
                if not migrations.check(connection):
                    return skipped(name, "nobody has signed in yet")
                rows = connection.execute(
                    "SELECT state, scope FROM upstream_tokens"
                ).fetchall()
        except (sqlite3.Error, StoreRefused) as error:
            return skipped(name, f"the store cannot be read: {error}")
        waiting = sum(state == "needs_sign_in" for state, _ in rows)
        other = sum(
            scope is not None and not granted_equivalent(wanted, scope)
            for _, scope in rows
        )
        if other:
            return warning(
                name,
                f"{other} of {len(rows)} users have granted other scopes in Forgejo "
                "than forgejo.oauth_scopes",
                "They keep those until they remove the application under Settings, "
                "Applications in Forgejo and sign in again.",
            )
        return ok(name, f"{len(rows)} users, {waiting} have to sign in again")

    def disk(self) -> Finding:
        """
        @return: whether there is room for the store to grow.
        """
        folder = Path(self._config.database.path).absolute().parent
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        shown = f"{free // 2**20} MiB are free at {folder}"
        if free < LEAST_FREE_BYTES:
            return warning("disk", shown, "Make room: without it nobody can sign in.")
        return ok("disk", shown)


def _reader(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
