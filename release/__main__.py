"""
C{python -m release}: see docs/releasing.md.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from release import changelog, rules, sbom, versions, whole
from release.commands import ReleaseError

TOP = Path(__file__).resolve().parents[1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m release")
    commands = parser.add_subparsers(dest="command", required=True)
    bump = commands.add_parser("bump", help="give everything another version")
    bump.add_argument("version", help="MAJOR.MINOR.PATCH")
    collect = commands.add_parser("changelog", help="collect the fragments")
    collect.add_argument("--date", help="of the release, default today (UTC)")
    commands.add_parser("check", help="say what stands in the way of a release")
    bill = commands.add_parser("sbom", help="write the bill of materials")
    make = commands.add_parser("make", help="build everything that is released")
    for command in (bill, make):
        command.add_argument("--forgejo-mcp-module", required=True)
        command.add_argument("--forgejo-mcp-version", required=True)
        command.add_argument("--output", type=Path, default=Path("dist"))
    bill.add_argument("--forgejo-mcp-binary", type=Path, help="the one of the image")
    make.add_argument("--ci-log", type=Path, help="of .ci/run for this commit")
    make.add_argument("--without-image", action="store_true")
    make.add_argument("--podman", default="podman")
    make.add_argument("--image", default="localhost/fjmcp-broker")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> None:
    if options.command == "bump":
        for path in versions.bump(TOP, options.version):
            whole.say(f"changed {path}")
    elif options.command == "changelog":
        date = options.date or datetime.now(UTC).date().isoformat()
        changelog.collect(TOP, Path(sys.executable).with_name("towncrier"), date)
        whole.say(f"{changelog.PAGE} has {versions.current(TOP)} now; read it")
    elif options.command == "check":
        problems = rules.problems(TOP)
        if problems:
            raise ReleaseError(*problems)
        whole.say("nothing stands in the way")
    elif options.command == "sbom":
        file = options.output / f"fjmcp-broker-{versions.current(TOP)}.cdx.json"
        module, version = options.forgejo_mcp_module, options.forgejo_mcp_version
        sbom.write(TOP, module, version, file, binary=options.forgejo_mcp_binary)
        whole.say(f"{file}")
    else:
        made = whole.release(
            whole.Wanted(
                top=TOP,
                output=options.output,
                module=options.forgejo_mcp_module,
                version=options.forgejo_mcp_version,
                log=options.ci_log,
                with_image=not options.without_image,
                podman=options.podman,
                image=options.image,
            )
        )
        whole.say(f"released to {made}; docs/releasing.md says how to publish it")


def main() -> int:
    """
    @return: the exit status.
    """
    try:
        _run(_options())
    except ReleaseError as error:
        for problem in error.problems:
            sys.stderr.write(f"refused: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
