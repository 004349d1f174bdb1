"""Rules that the whole repository keeps, checked on its files."""

import ast
import configparser
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

TOP: Final = Path(__file__).parent.parent
PACKAGE: Final = "fjmcp_broker"

LEVELS: Final = (
    ("tap", "cli", "demo"),
    (
        "services",
        "admin_commands",
        "backup_commands",
        "bookkeeping",
        "doctor",
        "endpoints",
        "listeners",
        "observing",
        "periodic",
        "reload",
        "preflight",
    ),
    ("web", "control"),
    ("sessions",),
    ("upstream",),
    ("store", "trace"),
    ("config",),
    ("oauth", "mcp"),
    (
        "metrics",
        "exposition",
        "series",
        "limits",
        "logs",
        "ordered",
        "process",
        "systemd",
        "timers",
        "clocks",
        "deadlines",
        "turns",
        "eager",
    ),
    ("errors", "secret", "version", "key_text", "rights"),
)
"""A module may import from its own level and from those below it, the later ones."""

PURE: Final = ("oauth", "mcp", "limits")
IMPURE: Final = ("twisted", "klein", "treq", "sqlite3", "socket", "time", "secrets")
MOST_LINES: Final = 400
FRAGMENT: Final = re.compile(
    r"[A-Za-z0-9+._-]+\.(feature|bugfix|security|removal|doc|misc)\.md"
)


def tracked() -> list[Path]:
    """
    @return: the files of the repository, also new ones that are not ignored.
    """
    git = ["git", "-C", str(TOP), "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True)  # noqa: S603 - a fixed command
    return [
        path for name in listed.stdout.splitlines() if (path := TOP / name).exists()
    ]


def modules(*directories: str) -> Iterator[tuple[Path, ast.Module]]:
    """
    @param directories: where to look, from the top.
    @return: each Python file with its syntax tree.
    """
    for directory in directories:
        for path in sorted((TOP / directory).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """
    @param path: of a module.
    @param tree: of that module.
    @return: full names of what it imports, and the lines.
    """
    package = path.relative_to(TOP).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def part(name: str) -> str | None:
    """
    @param name: the full name of an import.
    @return: which part of this software it belongs to.
    """
    pieces = name.split(".")
    return pieces[1] if pieces[0] == PACKAGE and len(pieces) > 1 else None


class ImportTests(SynchronousTestCase):
    """Who may know whom."""

    def test_nothing_imports_upwards(self) -> None:
        """The arrows of docs/conventions.md point one way."""
        level = {name: i for i, names in enumerate(LEVELS) for name in names}
        wrong = []
        for path, tree in modules(PACKAGE):
            own = path.relative_to(TOP / PACKAGE).parts[0].removesuffix(".py")
            if own == "__init__":
                continue
            self.assertIn(own, level, f"{path} belongs to no level")
            for name, line in imports(path, tree):
                other = part(name)
                if other is not None and level.get(other, len(LEVELS)) < level[own]:
                    wrong.append(f"{path.relative_to(TOP)}:{line} imports {name}")
        self.assertEqual(wrong, [])

    def test_the_core_does_no_input_or_output(self) -> None:
        """oauth, mcp and limits are values and decisions."""
        wrong = []
        for path, tree in modules(*(f"{PACKAGE}/{name}" for name in PURE)):
            for name, line in imports(path, tree):
                if name.split(".")[0] in IMPURE:
                    wrong.append(f"{path.relative_to(TOP)}:{line} imports {name}")
        self.assertEqual(wrong, [])

    def test_the_reactor_is_passed_in(self) -> None:
        """Only tap.py takes it from Twisted, and the demo inside a function."""
        wrong = []
        for path, tree in modules(PACKAGE):
            where = str(path.relative_to(TOP / PACKAGE))
            lazily = where.startswith("demo/")
            inside = {
                inner
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for inner in ast.walk(node)
            }
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.ImportFrom)
                    and node.module == "twisted.internet"
                    and any(alias.name == "reactor" for alias in node.names)
                    and where != "tap.py"
                    and not (lazily and node in inside)
                ):
                    wrong.append(f"{where}:{node.lineno}")
        self.assertEqual(wrong, [])

    def test_plugin_directories_are_no_packages(self) -> None:
        """An __init__.py there would hide Twisted or overwrite its file."""
        self.assertEqual(list((TOP / "twisted").rglob("__init__.py")), [])


class TestTrapTests(SynchronousTestCase):
    """Tests that pass without having run."""

    def test_no_coroutine_in_a_synchronous_case(self) -> None:
        """Nobody awaits it, and it counts as passed."""
        wrong = []
        for path, tree in modules("tests"):
            synchronous = {"SynchronousTestCase"}
            for node in tree.body:
                if not isinstance(node, ast.ClassDef):
                    continue
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                if not bases & synchronous:
                    continue
                synchronous.add(node.name)
                for child in node.body:
                    if isinstance(
                        child, ast.AsyncFunctionDef
                    ) and child.name.startswith("test"):
                        wrong.append(f"{path.relative_to(TOP)}:{child.lineno}")
        self.assertEqual(wrong, [])

    def test_no_machine_alias(self) -> None:
        """trial does not collect hypothesis' Machine.TestCase."""
        wrong = [
            f"{path.relative_to(TOP)}:{node.lineno}"
            for path, tree in modules("tests")
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr == "TestCase"
        ]
        self.assertEqual(wrong, [])


class FileTests(SynchronousTestCase):
    """What stands in the files of the repository."""

    def test_modules_have_one_subject(self) -> None:
        """Past this length there are two."""
        long = [
            f"{path.relative_to(TOP)}: {lines}"
            for path, _tree in modules(PACKAGE)
            if (lines := len(path.read_text(encoding="utf-8").splitlines()))
            > MOST_LINES
        ]
        self.assertEqual(long, [])

    def test_no_machine_and_no_registry_is_named(self) -> None:
        """
        A path of somebody's machine works nowhere else, and a package index is the
        business of whoever installs.
        """
        slash = "/"
        machine = re.compile(rf"(?<![\w.~-]){slash}(?:work|root|farm){slash}")
        registry = re.compile(
            r"https?://[^\s/]*(?:pypi|pythonhosted|npmjs|artifactory|nexus)[^\s]*"
            r"|(?:index-url|PIP_INDEX_URL|GOPROXY) *=|proxy\.golang\.org",
            re.IGNORECASE,
        )
        wrong = []
        for path in tracked():
            if path == Path(__file__):
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                if machine.search(line) or registry.search(line):
                    wrong.append(f"{path.relative_to(TOP)}:{number}")
        self.assertEqual(wrong, [])

    def test_every_dependency_has_a_reason(self) -> None:
        """Each name in setup.cfg has an entry in docs/deps.md."""
        config = configparser.ConfigParser()
        config.read(TOP / "setup.cfg", encoding="utf-8")
        texts = [config["options"]["install_requires"]]
        texts += config["options.extras_require"].values()
        names = [
            re.split(r"[ <>=~!\[;]", line.strip(), maxsplit=1)[0]
            for text in texts
            for line in text.splitlines()
            if line.strip()
        ]
        page = (TOP / "docs" / "deps.md").read_text(encoding="utf-8")
        entries = {name.lower() for name in re.findall(r"^\| `([^`]+)`", page, re.M)}
        self.assertTrue(names)
        self.assertEqual([name for name in names if name.lower() not in entries], [])

    def test_changelog_fragments_have_names_that_towncrier_reads(self) -> None:
        """It passes over any other name without a word."""
        wrong = [
            path.name
            for path in (TOP / "changelog.d").iterdir()
            if path.name != ".gitignore" and not FRAGMENT.fullmatch(path.name)
        ]
        self.assertEqual(wrong, [])
