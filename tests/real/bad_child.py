"""
Children that misbehave, for the tests of the supervisor. Standard library only.

Usage: C{python bad_child.py KIND}
"""

import json
import os
import signal
import subprocess
import sys
import time


def _forever() -> None:
    while True:
        time.sleep(3600)


def silent() -> None:
    """Says nothing, ends at the end of its input."""
    sys.stdin.buffer.read()


def hanging() -> None:
    """Reads nothing, says nothing, does not end by itself."""
    _forever()


def flooding() -> None:
    """Floods standard error; says C{done} on standard output afterwards."""
    for number in range(20_000):
        sys.stderr.buffer.write(b"\x1b[31mnoise\x1b[0m %d\n" % number)
    sys.stderr.buffer.write(b"x" * 3_000_000 + b"\nlast words\n")
    sys.stderr.flush()
    sys.stdout.write('"done"\n')
    sys.stdout.flush()
    sys.stdin.buffer.read()


def sluggish() -> None:
    """Reads nothing for a while, then tells how much it got, and that it was whole."""
    time.sleep(0.5)
    lines = sys.stdin.buffer.read().split(b"\n")
    whole = all(len(line) == 65_000 for line in lines[:-1])
    sys.stdout.write(json.dumps([len(lines) - 1, whole, len(lines[-1])]) + "\n")
    sys.stdout.flush()


def crashing() -> None:
    """Ends with status 3 after one line of regret."""
    sys.stderr.write("cannot go on\n")
    sys.exit(3)


def segfaulting() -> None:
    """Dies of a signal."""
    os.kill(os.getpid(), signal.SIGSEGV)


def deaf() -> None:
    """Ignores SIGTERM and the end of its input."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.write('"deaf"\n')
    sys.stdout.flush()
    _forever()


def closing() -> None:
    """Closes standard output and lives on."""
    os.close(1)
    _forever()


def closing_input() -> None:
    """Closes standard input and lives on."""
    os.close(0)
    _forever()


def forking() -> None:
    """Leaves a grandchild that holds all pipes and ignores SIGTERM, then ends."""
    grandchild = subprocess.Popen([sys.executable, __file__, "deaf"])  # noqa: S603 - fixed
    sys.stdout.write(f"{grandchild.pid}\n")
    sys.stdout.flush()


def escaping() -> None:
    """The same, in a session of its own."""
    grandchild = subprocess.Popen(  # noqa: S603 - fixed
        [sys.executable, __file__, "deaf"], start_new_session=True
    )
    sys.stdout.write(f"{grandchild.pid}\n")
    sys.stdout.flush()


def huge() -> None:
    """Writes one line of a size named in the environment."""
    sys.stdout.write('"' + "x" * int(os.environ["HUGE_BYTES"]) + '"\n')
    sys.stdout.flush()
    sys.stdin.buffer.read()


def stopping() -> None:
    """Stops itself, as a debugger or a job control shell would."""
    sys.stdout.write('"stopped"\n')
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGSTOP)
    _forever()


def telling() -> None:
    """Tells what it was given, and leaks its token on both outputs."""
    token = os.environ["FORGEJO_ACCESS_TOKEN"]
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the one that listed them
        descriptors.append(int(name))
    sys.stderr.write(f"my token is {token}\n")
    sys.stderr.flush()
    environment = {k: v for k, v in os.environ.items() if v != token}
    sys.stdout.write(
        json.dumps(
            {
                "environment": environment,
                "directory": os.getcwd(),
                "files": os.listdir("."),
                "mode": os.stat(".").st_mode & 0o777,
                "descriptors": sorted(descriptors),
                "leads_group": os.getpid() == os.getpgid(0) == os.getsid(0),
                "arguments": sys.argv[2:],
                "token": f"a {token} b",
            }
        )
        + "\n"
    )
    sys.stdout.flush()
    sys.stdin.buffer.read()
    with open("left-behind", "w") as file:
        file.write("x")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
