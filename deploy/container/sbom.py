"""
Write the bill of materials of the image, CycloneDX in JSON::

    python deploy/container/sbom.py FORGEJO_MCP_MODULE FORGEJO_MCP_VERSION FILE

It has every Python package that the image has, as C{cyclonedx-py} finds them in an
environment made as the Containerfile makes it, and forgejo-mcp as the one module that
it is; what that is linked from is in the binary (C{go version -m}).
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
TOP: Final = HERE.parents[1]


def python(*arguments: str | Path) -> None:
    """
    @param arguments: of a Python of the environment that this runs in.
    @raise subprocess.CalledProcessError: it failed.
    """
    subprocess.run([sys.executable, *map(str, arguments)], check=True)  # noqa: S603 - our own command lines


def with_forgejo_mcp(bill: dict[str, Any], module: str, version: str) -> dict[str, Any]:
    """
    @param bill: a bill of materials.
    @param module: the Go module, without the version.
    @param version: without the letter that Go puts before it.
    @return: the bill with the module, see the type C{golang} of package URLs.
    """
    name = f"pkg:golang/{module}@v{version}"
    component = {
        "type": "application",
        "bom-ref": name,
        "name": module,
        "version": f"v{version}",
        "purl": name,
    }
    return {**bill, "components": [*bill["components"], component]}


def main(module: str, version: str, file: Path) -> None:
    """
    Write the bill.

    @param module: of forgejo-mcp.
    @param version: of forgejo-mcp.
    @param file: where to; its directory is made.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        target = directory / "environment"
        venv.create(target, with_pip=False)
        into = target / "bin" / "python"
        pip = ("-m", "pip", "--python", str(into), "install", "--quiet")
        python(*pip, "--require-hashes", "--requirement", HERE / "requirements.txt")
        python("-m", "build", "--wheel", "--outdir", directory, TOP)
        python(*pip, "--no-deps", *directory.glob("*.whl"))
        found = directory / "found.json"
        python(
            *("-m", "cyclonedx_py", "environment", "--output-reproducible"),
            *("--output-format=JSON", f"--output-file={found}"),
            into,
        )
        bill = json.loads(found.read_text(encoding="utf-8"))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = json.dumps(with_forgejo_mcp(bill, module, version), indent=2)
    file.write_text(whole + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
