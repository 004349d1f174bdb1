"""How children are launched."""

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.processes.spawn import (
    ChildSettings,
    ChildSettingsError,
    Launcher,
    child_environment,
    make_working_directory,
    remove_stale_working_directories,
    remove_working_directory,
)


def settings(**changes: object) -> ChildSettings:
    """Settings of a child that is never started."""
    return ChildSettings(
        **{  # type: ignore[arg-type]
            "command": ("forgejo-mcp", "--transport", "stdio"),
            "forgejo_url": "https://git.example/sub",
            **changes,
        }
    )


class EnvironmentTests(SynchronousTestCase):
    """What a child gets to know."""

    def test_everything_configured_is_there(self) -> None:
        """Names of the variables, extras, private CA and proxy."""
        environment = child_environment(
            settings(
                token_env="TOKEN",
                url_env="SERVER",
                env={"GOMEMLIMIT": "64MiB"},
                ca_file="/etc/ca.pem",
                proxy="http://proxy:3128",
            ),
            Secret("s3cret"),
            {"PATH": "/bin", "LANG": "de_DE.UTF-8", "TZ": "UTC", "AWS_KEY": "x"},
        )
        user_agent = environment.pop("FORGEJO_USER_AGENT")
        self.assertTrue(user_agent.startswith("fjmcp-broker/"))
        self.assertEqual(
            environment,
            {
                "PATH": "/bin",
                "LANG": "de_DE.UTF-8",
                "TZ": "UTC",
                "TOKEN": "s3cret",
                "SERVER": "https://git.example/sub",
                "GOMEMLIMIT": "64MiB",
                "SSL_CERT_FILE": "/etc/ca.pem",
                "HTTP_PROXY": "http://proxy:3128",
                "HTTPS_PROXY": "http://proxy:3128",
            },
        )

    def test_defaults_where_the_daemon_has_none(self) -> None:
        """An empty environment of the daemon still gives a usable one."""
        environment = child_environment(settings(), Secret("t"), {})
        self.assertIn("/usr/bin", environment["PATH"])
        self.assertEqual(environment["LANG"], "C.UTF-8")
        self.assertNotIn("TZ", environment)

    def test_refused_settings(self) -> None:
        """Host files stay closed to tools; the broker's own variables are its own."""
        for changes in (
            {"env": {"FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD": "1"}},
            {"env": {"forgejo_mcp_allow_file_path_upload": "1"}},
            {"token_env": "FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD"},
            {"env": {"FORGEJO_ACCESS_TOKEN": "x"}},
            {"env": {"FORGEJO_URL": "x"}},
            {"env": {"A=B": "x"}},
            {"env": {"": "x"}},
            {"command": ()},
        ):
            with self.assertRaises(ChildSettingsError, msg=repr(changes)):
                settings(**changes)


class LauncherTests(SynchronousTestCase):
    """Which helpers are put in front."""

    def test_the_helper_is_in_front(self) -> None:
        """On an ordinary system."""
        launcher = Launcher.detect(works=lambda command: True)
        setpriv, *options, shell, flag, script = launcher.command_line(
            ("sh", "-c", "true")
        )
        self.assertEqual(os.path.basename(setpriv), "setpriv")
        self.assertEqual(options, ["--pdeathsig", "KILL"])
        self.assertTrue(os.path.isabs(shell))
        self.assertEqual((flag, script), ("-c", "true"))

    def test_a_helper_that_does_not_work(self) -> None:
        """It is left out."""
        launcher = Launcher.detect(works=lambda command: False)
        line = launcher.command_line(("sh", "-c", "true"))
        self.assertEqual(os.path.basename(line[0]), "sh")

    def test_a_missing_helper(self) -> None:
        """An empty search path is the same as one that does not work."""
        self.assertEqual(Launcher.detect(path="/nowhere").death_signal, ())


class WorkingDirectoryTests(SynchronousTestCase):
    """The private directory of a child."""

    def test_leftovers_of_killed_daemons(self) -> None:
        """Removed by the next start; those of living ones and of others stay."""
        parent = self.mktemp()
        os.mkdir(parent)
        self.patch(tempfile, "tempdir", parent)
        own = os.path.basename(make_working_directory())
        gone = "fjmcp-child-4194999-abc"  # no process can have this number
        for name in (gone, "fjmcp-child-x-abc", "other-4194999-abc"):
            os.mkdir(os.path.join(parent, name))
        with open(os.path.join(parent, gone, "file"), "w") as file:
            file.write("x")
        remove_stale_working_directories()
        self.assertEqual(
            set(os.listdir(parent)), {own, "fjmcp-child-x-abc", "other-4194999-abc"}
        )

    def test_private_and_removed(self) -> None:
        """Nobody else may enter, and what is left there goes with it."""
        path = make_working_directory()
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)
        os.mkdir(os.path.join(path, "left"))
        remove_working_directory(path)
        self.assertFalse(os.path.exists(path))
        remove_working_directory(path)
