"""The commands C{fjmcp-broker} and C{twistd fjmcp}, short of running anything."""

import os
import sys
from io import StringIO
from pathlib import Path

from twisted.application.service import (
    Application,
    IServiceCollection,
    IServiceMaker,
)
from twisted.logger import ILogObserver, Logger
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker import cli, tap
from fjmcp_broker.config.inward import LogConfig
from fjmcp_broker.config.records import KEYS_BY_NAME
from fjmcp_broker.version import (
    UNKNOWN,
    VERSION,
    build_information,
    read_build_information,
)

ENOUGH = {
    "FJMCP_BROKER_PUBLIC_URL": "https://mcp.example.org",
    "FORGEJO_URL": "https://git.example.org",
    "FORGEJO_OAUTH_CLIENT_ID": "client",
    "FORGEJO_OAUTH_CLIENT_SECRET": "the-secret",
}


class CommandCase(SynchronousTestCase):
    """Runs commands with an environment of their own."""

    def setUp(self) -> None:
        """Catch what is printed, and forget the real environment."""
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.use_environment({})

    def use_environment(self, environment: dict[str, str]) -> None:
        """
        @param environment: the variables that the commands see.
        """
        self.patch(os, "environ", environment)

    def command(self, *arguments: str) -> int:
        """
        @param arguments: the command line.
        @return: the exit status.
        """
        try:
            return cli.main(arguments)
        except SystemExit as error:
            return int(error.code or 0)


class CheckConfigTests(CommandCase):
    """C{fjmcp-broker check-config}."""

    def test_right_configuration(self) -> None:
        """OK, the effective values, no secret, exit 0."""
        self.use_environment({**ENOUGH, "FJMCP_BROKER_X": "1"})
        self.assertEqual(self.command("check-config"), 0)
        self.assertTrue(self.out.getvalue().startswith("OK\n"))
        self.assertNotIn("the-secret", self.out.getvalue())
        self.assertIn("FJMCP_BROKER_X", self.err.getvalue())

    def test_wrong_configuration(self) -> None:
        """All problems, exit 1, nothing on standard output."""
        self.assertEqual(self.command("check-config", "--config", "/nonexistent"), 1)
        self.assertEqual(self.out.getvalue(), "")
        self.assertIn("5 problems", self.err.getvalue())
        self.assertNotIn("Traceback", self.err.getvalue())

    def test_foreign_tables_are_noted(self) -> None:
        """One line on standard error."""
        self.use_environment(ENOUGH)
        path = self.mktemp()
        Path(path).write_text("[sso]\n", encoding="utf-8")
        self.assertEqual(self.command("check-config", "--config", path), 0)
        self.assertEqual(len(self.err.getvalue().splitlines()), 1)


class ArgumentTests(CommandCase):
    """What the parser lets through."""

    def test_version(self) -> None:
        """Version, revision and build date on one line."""
        self.assertEqual(self.command("--version"), 0)
        self.assertEqual(self.out.getvalue(), f"fjmcp-broker {build_information()}\n")

    def test_demo_stays_on_this_machine(self) -> None:
        """Its users and passwords are known to everybody."""
        for host in ("0.0.0.0", "192.0.2.1", "example.org", "::"):
            self.assertEqual(self.command("demo", "--host", host), 2)
        parsed = cli.parser().parse_args(["demo"])
        self.assertEqual(
            (parsed.host, parsed.port, parsed.forgejo_port), ("127.0.0.1", 8080, 3000)
        )
        for port in ("x", "-1", "65536", "00000099999", "9" * 4999):
            self.assertEqual(self.command("demo", "--port", port), 2)

    def test_nothing_and_nonsense(self) -> None:
        """The usual exit status for a wrong command line."""
        self.assertEqual(self.command(), 2)
        self.assertEqual(self.command("nonsense"), 2)


class HealthcheckTests(CommandCase):
    """C{fjmcp-broker healthcheck}."""

    def test_only_http_is_asked(self) -> None:
        """A file is no daemon."""
        self.assertEqual(self.command("healthcheck", "file:///etc/passwd"), 2)

    def test_usual_url_follows_the_environment(self) -> None:
        """The image listens where its variables say."""
        for environment, port in (
            ({}, 8080),
            ({"PORT": "1"}, 1),
            ({"FJMCP_BROKER_LISTEN": "0.0.0.0:9"}, 9),
            ({"FJMCP_BROKER_SERVER_LISTEN_ADDR": "unix:/x"}, 8080),
            ({"FJMCP_BROKER_LISTEN": "nonsense"}, 8080),
        ):
            url = cli.default_health_url(environment)
            self.assertEqual(url, f"http://127.0.0.1:{port}/healthz")
        url = cli.default_health_url({"FJMCP_BROKER_SERVER_TLS": "required"})
        self.assertEqual(url, "https://127.0.0.1:8080/healthz")


class VersionTests(SynchronousTestCase):
    """Which build this is."""

    def test_file_of_the_container_beats_the_wheel(self) -> None:
        """Both have the same form; a broken one counts as absent."""
        package = Path(self.mktemp()) / "fjmcp_broker"
        package.mkdir(parents=True)
        container = package / "build-info"
        nothing = read_build_information(package, container)
        self.assertEqual((nothing.revision, nothing.build_date), (UNKNOWN, UNKNOWN))
        self.assertEqual(nothing.version, VERSION)
        wheel = package / "_build.json"
        wheel.write_text('{"revision": "abc", "build_date": ""}', encoding="utf-8")
        found = read_build_information(package, container)
        self.assertEqual((found.revision, found.build_date), ("abc", UNKNOWN))
        container.write_text('{"revision": "def", "build_date": "today"}')
        found = read_build_information(package, container)
        self.assertEqual((found.revision, found.build_date), ("def", "today"))
        for broken in ("[]", "nonsense", '{"revision": 1}', "3"):
            container.write_text(broken, encoding="utf-8")
            self.assertEqual(read_build_information(package, container).revision, "abc")

    def test_checkout_that_git_does_not_know(self) -> None:
        """A damaged checkout has no revision, and no traceback."""
        package = Path(self.mktemp()) / "fjmcp_broker"
        package.mkdir(parents=True)
        (package.parent / ".git").mkdir()
        found = read_build_information(package, package / "no")
        self.assertEqual(found.revision, UNKNOWN)


class TapTests(CommandCase):
    """C{twistd fjmcp}."""

    def test_plugin_is_found(self) -> None:
        """Under its name, with our options."""
        makers = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        self.assertIs(makers["fjmcp"].options, tap.Options)

    def test_help_lists_every_key(self) -> None:
        """Each with its option, its variables and its default."""
        helped = str(tap.Options())
        for key in KEYS_BY_NAME.values():
            self.assertIn(key.file_key, helped)
            for variable in key.variables:
                self.assertIn(variable.name, helped)
        self.assertIn('"127.0.0.1:8080"', helped)

    def test_problems_are_one_message_without_traceback(self) -> None:
        """SystemExit is what every runner turns into one message and status 1."""
        options = tap.Options()
        options.parseOptions(["--server-tls=maybe"])
        error = self.assertRaises(SystemExit, tap.makeService, options)
        self.assertIn("5 problems", str(error.code))
        self.assertIn("--server-tls", str(error.code))
        self.assertIsNone(error.__cause__)

    def test_unknown_option_is_a_usage_error(self) -> None:
        """Reported by the runner in its own way."""
        options = tap.Options()
        self.assertRaises(usage.UsageError, options.parseOptions, ["--nonsense=1"])

    def test_version_option_is_ours(self) -> None:
        """Not Twisted's."""
        self.assertRaises(SystemExit, tap.Options().parseOptions, ["--version"])
        self.assertIn(VERSION, self.out.getvalue())

    def test_log_goes_where_twistd_was_told(self) -> None:
        """Output in the foreground, a file for a daemon, hands off otherwise."""
        log_file = self.mktemp()
        cases: list[tuple[dict[str, object], bool]] = [
            ({"nodaemon": True, "logfile": None}, True),
            ({"nodaemon": False, "logfile": log_file}, True),
            ({"nodaemon": True, "logger": "x"}, False),
            ({"nodaemon": True, "syslog": True}, False),
            ({"reactor": "default"}, False),  # twist
        ]
        for line, installed in cases:
            options = usage.Options()
            options.update(line)
            application = Application("x")
            daemon = tap.DaemonService(LogConfig(), options)
            daemon.setServiceParent(application)
            self.assertIn(daemon, list(IServiceCollection(application)))
            observer = application.getComponent(ILogObserver)
            self.assertEqual(observer is not None, installed, line)
            if line.get("logfile"):
                Logger("x", observer=observer).info("written")
                observer._observer._output.close()
        self.assertIn('"written"', Path(log_file).read_text())
