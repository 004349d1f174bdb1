"""The C{fjmcp-broker} command: what an operator needs beside the daemon."""

import argparse
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Final

from fjmcp_broker import admin_commands, backup_commands
from fjmcp_broker.config.addresses import (
    LOOPBACK_NAMES,
    is_loopback_url,
    parse_listen_address,
)
from fjmcp_broker.config.load import load
from fjmcp_broker.config.problems import ConfigError
from fjmcp_broker.config.render import effective_values
from fjmcp_broker.version import build_information

_HEALTH_SECONDS: Final = 5.0
_DOCTOR_SECONDS: Final = 10.0
_USUAL_PORT: Final = 8080


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a port from 0 to 65535")
    return int(text)


def _loopback(text: str) -> str:
    if text not in LOOPBACK_NAMES:
        names = ", ".join(LOOPBACK_NAMES)
        # The demo has known users and passwords.
        raise argparse.ArgumentTypeError(f"the demo listens on {names} only")
    return text


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not float(text):
        raise argparse.ArgumentTypeError("must be a number of seconds")
    return float(text)


def _health_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("must be an http:// or https:// URL")
    return text


def parser() -> argparse.ArgumentParser:
    """
    @return: the parser of the command line.
    """
    top = argparse.ArgumentParser(
        prog="fjmcp-broker",
        description="What an operator needs beside the daemon (twistd fjmcp).",
        # Keeps the version on one line.
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--version", action="version", version=f"fjmcp-broker {build_information()}"
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    admin_commands.add_to(commands)
    backup_commands.add_to(commands)

    check = commands.add_parser(
        "check-config",
        help="read the configuration as the daemon would and show it",
    )
    check.add_argument("--config", metavar="FILE", help="the TOML file")
    check.set_defaults(run=_check_config)

    demo = commands.add_parser(
        "demo", help="run a broker in front of a stand-in Forgejo on this machine"
    )
    demo.add_argument("--host", type=_loopback, default="127.0.0.1")
    demo.add_argument("--port", type=_port, default=_USUAL_PORT)
    demo.add_argument("--forgejo-port", type=_port, default=3000)
    demo.set_defaults(run=_demo)

    doctor = commands.add_parser(
        "doctor", help="look at everything that can be wrong with an installation"
    )
    doctor.add_argument("--config", metavar="FILE", help="the TOML file")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=_DOCTOR_SECONDS,
        help="for each step of each request",
    )
    doctor.set_defaults(run=_doctor)

    health = commands.add_parser(
        "healthcheck", help="ask a running daemon whether it is well"
    )
    health.add_argument("url", metavar="URL", nargs="?", type=_health_url)
    health.set_defaults(run=_healthcheck)

    server = commands.add_parser(
        "server", help="run the daemon: twistd --nodaemon --pidfile= fjmcp"
    )
    server.add_argument("--config", metavar="FILE", help="the TOML file")
    server.set_defaults(run=_server)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    @param arguments: the command line without the program; the process's own when
        left out.
    @return: the exit status.
    """
    parsed = parser().parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


def _check_config(arguments: argparse.Namespace) -> int:
    try:
        loaded = load(arguments.config, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"OK\n\n{effective_values(loaded)}")
    for sentence in loaded.notes:
        sys.stderr.write(f"note: {sentence}\n")
    for sentence in loaded.warnings:
        sys.stderr.write(f"warning: {sentence}\n")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    # Not needed by the other commands, and slow to import.
    from fjmcp_broker.demo.run import main as run_demo

    status: int = run_demo(arguments)
    return status


def _doctor(arguments: argparse.Namespace) -> int:
    # Not needed by the other commands.
    from fjmcp_broker.doctor import findings as f
    from fjmcp_broker.doctor.examine import examine
    from fjmcp_broker.version import VERSION

    findings = []
    for finding in examine(arguments.config, os.environ, arguments.timeout):
        findings.append(finding)
        if not arguments.json:
            sys.stdout.write(f.as_text(finding))
            sys.stdout.flush()
    if arguments.json:
        sys.stdout.write(f.as_json(findings, VERSION))
    else:
        sys.stdout.write(f.verdict(findings))
    return 0 if f.is_well(findings) else 1


def default_health_url(environment: Mapping[str, str]) -> str:
    """
    @param environment: the variables of the container.
    @return: where a daemon with that environment answers on this machine.
    """
    port = environment.get("PORT") or environment.get("PORT_HTTP")
    listen = environment.get("FJMCP_BROKER_LISTEN") or environment.get(
        "FJMCP_BROKER_SERVER_LISTEN_ADDR"
    )
    if not port and listen:
        try:
            port = str(parse_listen_address(listen).port or "")
        except ValueError:
            port = ""
    tls = environment.get("FJMCP_BROKER_SERVER_TLS", "").strip().lower()
    scheme = "https" if tls == "required" else "http"
    return f"{scheme}://127.0.0.1:{port or _USUAL_PORT}/healthz"


def _trust(url: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if is_loopback_url(url):
        # The certificate names the public host, and nobody is between.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _healthcheck(arguments: argparse.Namespace) -> int:
    url = arguments.url or default_health_url(os.environ)
    # A proxy for the way out is no way to this machine.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=_trust(url)),
    )
    try:
        with opener.open(url, timeout=_HEALTH_SECONDS):
            return 0
    except urllib.error.HTTPError as error:
        with error:
            sys.stderr.write(f"{url}: {error.code} {error.reason}\n")
    except (OSError, ValueError, HTTPException) as error:
        sys.stderr.write(f"{url}: {getattr(error, 'reason', error)}\n")
    return 1


def _server(arguments: argparse.Namespace) -> int:
    # Installs the reactor, which no other command wants.
    from twisted.scripts.twistd import run as run_twistd

    options = [] if arguments.config is None else ["--config", arguments.config]
    # twistd reads no other list than this one.
    sys.argv[1:] = ["--nodaemon", "--pidfile=", "fjmcp", *options]
    run_twistd()
    return 0
