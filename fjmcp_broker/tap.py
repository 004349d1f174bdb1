"""
C{twistd fjmcp}: from the command line to a service.

What is needed only to run is imported when a service is made, so that C{--help}
answers quickly.
"""

import gc
import linecache
import os
import sys
import textwrap
from collections.abc import Callable
from typing import ClassVar, Final, cast

from twisted.application.service import IService, IServiceCollection, MultiService
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.logfile import LogFile

from fjmcp_broker import logs
from fjmcp_broker.config.inward import LogConfig
from fjmcp_broker.config.load import load
from fjmcp_broker.config.problems import ConfigError
from fjmcp_broker.config.records import KEYS_BY_NAME, Config
from fjmcp_broker.config.render import option_help, options_help
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.process import give_free_memory_back, keep_heap_small
from fjmcp_broker.version import build_information

_LOG_FILE: Final = "twistd.log"
"""What C{twistd} calls the log of a daemon."""

YOUNG_OBJECTS: Final = 10_000
"""So many more than there were, and the garbage collector looks at the newest; that is
those of a hundred calls. Python's own number is 700."""

OLDER: Final = 3
"""So many looks at the newest are followed by one at those before them, and so many of
these by one at all. With Python's own 10 and 10, what an error leaves in a ring would
stay until a million more objects are there; so it is 90,000, as without us."""


class Options(usage.Options):
    """The options of C{twistd fjmcp}: one for each configuration key."""

    synopsis = "[options]"
    longdesc = (
        "An OAuth 2.1 authorization server and Streamable HTTP endpoint in front of "
        "forgejo-mcp. Every key can stand in the file, in the environment or here; "
        "options beat variables, variables beat the file."
    )
    optParameters: ClassVar = [
        ["config", "c", None, "The TOML file; the environment alone is enough."],
        *(
            [key.option, None, None, option_help(key)]
            for key in KEYS_BY_NAME.values()
            if key.option
        ),
    ]

    def getUsage(self, width: int | None = None) -> str:
        """
        Say how to use it. The usual table would cut the names of variables in two.

        @param width: of the terminal.
        @return: the text of C{--help}.
        """
        lines = [
            self.getSynopsis(),
            "",
            *textwrap.wrap(self.longdesc, 84),
            "",
            "  -c, --config=",
            "      The TOML file.",
            "  --version",
            "      Print the version of fjmcp-broker.",
            options_help(),
        ]
        return "\n".join(lines)

    def opt_version(self) -> None:
        """
        Print the version of fjmcp-broker and exit.
        """
        sys.stdout.write(f"fjmcp-broker {build_information()}\n")
        raise SystemExit(0)


class DaemonService(MultiService):
    """
    The service that C{twistd} runs: has it log through our observer, and holds the
    root service.
    """

    def __init__(self, log_config: LogConfig, command_line: usage.Options) -> None:
        """
        @param log_config: what the configuration says about the log.
        @param command_line: the options of C{twistd} itself.
        """
        super().__init__()
        self._log_config = log_config
        self._command_line = command_line
        self._set_level: Callable[[str], None] | None = None

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """
        @param parent: the application.
        """
        super().setServiceParent(parent)
        line = self._command_line
        if line.get("logger") or line.get("syslog") or "nodaemon" not in line:
            return  # asked for another log by name, or not run by twistd
        name = line.get("logfile")
        on_output = line.get("nodaemon") and name in (None, "", "-")
        output = None if on_output else LogFile.fromFullPath(name or _LOG_FILE)
        level, format = self._log_config.level, self._log_config.format
        self._set_level = logs.install(parent, level, format, output)

    def set_level(self, level: str) -> bool:
        """
        @param level: for our observer.
        @return: whether that is the one in use.
        """
        if self._set_level is None:
            return False
        self._set_level(level)
        return True


def settle() -> None:
    """
    What is there when the daemon becomes ready stays; what was only needed to get there
    goes back to the system.
    """
    leave_out_of_collections()
    give_free_memory_back()


def leave_out_of_collections() -> None:
    """
    Let the garbage collector pass over all that is there now. The code and the tables
    of the libraries are tens of thousands of objects that stay, and walking through
    them again and again would hold every request up for tens of milliseconds.

    And have it look at the rest less often. Calls and connections that end leave no
    rings behind, so that what it finds is what is in use.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLDER, OLDER)


def forget_loading() -> None:
    """
    Drop what loading the program has left behind, before the service is made and takes
    its place: the contents of directories, which the next import reads again, the
    sources of what attrs has generated, which only tracebacks show, and rings.
    """
    sys.path_importer_cache.clear()
    linecache.clearcache()
    gc.collect()


def makeService(options: Options) -> IService:
    """
    Make the service that C{twistd} and C{twist} run.

    @param options: the parsed command line.
    @return: the service; no file, handle or thread is open yet.
    @raise SystemExit: with one message, if it could not run.
    """
    file = options["config"] and os.path.abspath(options["config"])

    def read() -> Config:
        return load(file, os.environ, options).config

    try:
        loaded = load(options["config"], os.environ, options)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    # Kept by the log until it is written to its observer.
    log = Logger()
    for sentence in loaded.notes:
        log.info("configuration: {sentence}", sentence=sentence)
    for sentence in loaded.warnings:
        log.warn("configuration: {sentence}", sentence=sentence)

    from twisted.internet import reactor

    from fjmcp_broker.clocks import follow_elapsed_time
    from fjmcp_broker.reload import Operator
    from fjmcp_broker.services import build, preflight
    from fjmcp_broker.turns import keep_turns_short

    forget_loading()
    daemon = DaemonService(loaded.config.log, cast(usage.Options, options.parent))
    try:
        keep_heap_small()
        preflight(loaded.config)
        follow_elapsed_time(reactor)
        keep_turns_short(reactor)
        operator = Operator(read, daemon.set_level)
        service = build(loaded.config, reactor, on_ready=settle, operator=operator)
        service.setServiceParent(daemon)
    except BrokerError as error:
        raise SystemExit(f"fjmcp-broker: {error}") from None
    return daemon
