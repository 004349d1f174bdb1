"""
A Go module in the place of forgejo-mcp, for where neither a module proxy nor a git
repository has that: under its name, for the Containerfile's own command to compile.

Usage: C{python -m tests.deploy.go_stand_in MODULE VERSION DIRECTORY}. The directory
gets the files of U{Go's proxy protocol<https://go.dev/ref/mod#goproxy-protocol>} that
are not there yet. The program is the demonstration's child, as the image has it.
"""

import sys
from pathlib import Path
from typing import Final
from zipfile import ZipFile

_PROGRAM: Final = """\
package main

import (
	"os"
	"syscall"
)

var Version = ""

func main() {
	python := "/opt/fjmcp-broker/bin/python"
	arguments := []string{python, "-m", "fjmcp_broker.demo.child"}
	err := syscall.Exec(python, append(arguments, os.Args[1:]...), os.Environ())
	os.Stderr.WriteString(err.Error() + "\\n")
	os.Exit(1)
}
"""


def main(module: str, version: str, directory: Path) -> None:
    """
    Write the module.

    @param module: its path.
    @param version: with the letter that Go puts before it.
    @param directory: of the versions, C{MODULE/@v}.
    """
    requirements = f"module {module}\n\ngo 1.25\n"
    (directory / f"{version}.mod").write_text(requirements)
    files = {
        "go.mod": requirements,
        "main.go": _PROGRAM,
        "LICENSE": "As fjmcp-broker, of whose tests this is a part.\n",
    }
    with ZipFile(directory / f"{version}.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{module}@{version}/{name}", text)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
