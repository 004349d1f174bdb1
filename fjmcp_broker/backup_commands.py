"""
The commands C{fjmcp-broker backup} and C{fjmcp-broker restore}.

A backup needs to know nothing but where the store is, so that a timer need not be given
the secrets of the daemon. A restore looks at the configuration when it can.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fjmcp_broker.config.load import load
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.store import backup as backups
from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.keys import key_path
from fjmcp_broker.store.restoring import Expected, restore

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_MOST_KEPT: Final = 9999


def add_to(commands: "Commands") -> None:
    """
    @param commands: of the command line; they get two more.
    """
    saving = commands.add_parser(
        "backup", help="copy the store, also while the daemon runs"
    )
    _add_store(saving)
    saving.add_argument(
        "--keep",
        metavar="N",
        type=_number,
        help="remove all but the newest N backups in the directory",
    )
    saving.add_argument(
        "target",
        metavar="FILE|DIR",
        help="a new file, or a directory for a file named by the time; one that is"
        " not there yet is made when it ends with /",
    )
    saving.set_defaults(run=_backup)

    restoring = commands.add_parser(
        "restore", help="put a backup in the place of the store; no daemon may run"
    )
    _add_store(restoring)
    restoring.add_argument("backup", metavar="FILE", help="the backup")
    restoring.set_defaults(run=_restore)


def _add_store(command: argparse.ArgumentParser) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument("--config", metavar="FILE", help="the TOML file")
    where.add_argument(
        "--store",
        metavar="FILE",
        help="the store itself; the configuration is not read then",
    )


def _number(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]*", text) or int(text) > _MOST_KEPT:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST_KEPT}")
    return int(text)


def _backup(arguments: argparse.Namespace) -> int:
    try:
        store = (
            arguments.store or load(arguments.config, os.environ).config.database.path
        )
        target = _target(arguments.target, store)
        if arguments.keep is not None and target == arguments.target:
            raise StoreRefused("--keep needs a directory, not the name of a file")
        contents = backups.backup(store, target)
        removed = []
        if arguments.keep is not None:
            removed = backups.prune(str(Path(target).parent), store, arguments.keep)
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{target}: whole, {_described(contents)}\n")
    if contents.key_ids:
        sys.stdout.write(
            f"What is sealed in it needs {_keys(contents)}, which is not in it:"
            f" keep {_key_source(store)} elsewhere.\n"
        )
    for path in removed:
        sys.stdout.write(f"removed {path}\n")
    return 0


def _target(text: str, store: str) -> str:
    """
    @return: the path of the file to be.
    """
    if not text.endswith("/") and not Path(text).is_dir():
        return text
    with backups.trouble_named(f"the directory {text} cannot be made"):
        Path(text).mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(Path(text, backups.backup_name(store, int(time.time()))))


def _restore(arguments: argparse.Namespace) -> int:
    try:
        expected = None
        store = arguments.store
        if store is None:
            config = load(arguments.config, os.environ).config
            store = config.database.path
            expected = Expected(
                Instance(config.forgejo.url, config.forgejo.oauth_client_id),
                config.database.encryption_keys,
            )
        done = restore(arguments.backup, store, int(time.time()), expected)
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    contents = done.contents
    lines = [f"{store} is {arguments.backup} now: {_described(contents)}."]
    if done.aside is not None:
        lines.append(f"The store before is kept as {done.aside}.")
    lines.append(
        f"{_counted(done.suspended, 'user')} must sign in again, once and with any"
        " client: Forgejo's tokens in a backup may have been used since. The"
        " sessions and tokens of their clients go on after that."
    )
    lines.append(
        f"Voided: {_counted(done.codes, 'authorization code')},"
        f" {_counted(done.sign_ins, 'sign-in')} on the way."
    )
    lines.append(
        "What was revoked after the backup was made is not revoked now: revoke it"
        " again."
    )
    if expected is None and contents.key_ids:
        lines.append(
            f"The daemon needs {_keys(contents)}, in {key_path(store)} or in"
            " database.encryption_keys. Whether it is there was not looked at, nor"
            " whether the backup belongs to the configured Forgejo."
        )
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _described(contents: backups.Contents) -> str:
    return (
        f"schema {contents.schema}, {_counted(contents.users, 'user')},"
        f" {_counted(contents.grants, 'grant')},"
        f" {_counted(contents.sessions, 'session')}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _keys(contents: backups.Contents) -> str:
    ids = ", ".join(sorted(each.hex() for each in contents.key_ids))
    return f"the key {ids}" if len(contents.key_ids) == 1 else f"the keys {ids}"


def _key_source(store: str) -> str:
    """
    @return: what an operator has to keep.
    """
    path = key_path(store)
    return path if Path(path).exists() else "database.encryption_keys"
