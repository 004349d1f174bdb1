"""What Go binaries say of themselves."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from release import go_build
from release.commands import ReleaseError
from release.go_build import Module

MODULES = (
    "path\tgit.example.org/tool/v2\n"
    "mod\tgit.example.org/tool/v2\tv2.1.0\th1:AAAA=\n"
    "dep\tgolang.org/x/net\tv0.1.0\th1:BBBB=\n"
    "dep\tgit.example.org/old\tv1.0.0\n"
    "=>\tgit.example.org/fork\tv1.0.1\th1:CCCC=\n"
    "build\tGOARCH=amd64\n"
    'build\t-ldflags="-X main.Version=v2.1.0"\n'
)


def uvarint(number: int) -> bytes:
    """
    @return: as Go's encoding/binary writes it.
    """
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def binary(before: int, version: str, modules: str) -> bytes:
    """
    @param before: how many bytes come first, by sixteens.
    @param version: of Go.
    @param modules: the lines.
    @return: a binary with that and nothing else that matters.
    """
    text = b"\x30" * 16 + modules.encode() + b"\x31" * 16
    header = b"\xff Go buildinf:" + bytes([8, 2])
    strings = uvarint(len(version)) + version.encode() + uvarint(len(text)) + text
    return b"\x7fELF".ljust(16 * before, b"\0") + header.ljust(32, b"\0") + strings


class ParseTests(SynchronousTestCase):
    """Reading them."""

    def test_everything(self) -> None:
        """The program, what it is linked from, what was replaced, settings."""
        found = go_build.parse(binary(3, "go1.26.8", MODULES) + b"\0" * 40)
        self.assertEqual(found.go, "1.26.8")
        self.assertEqual(
            found.main, Module("git.example.org/tool/v2", "v2.1.0", "h1:AAAA=")
        )
        self.assertEqual(
            found.linked,
            (
                Module("golang.org/x/net", "v0.1.0", "h1:BBBB="),
                Module("git.example.org/fork", "v1.0.1", "h1:CCCC="),
            ),
        )
        self.assertEqual(found.settings["GOARCH"], "amd64")

    @given(st.integers(1, 5), st.integers(0, 400))
    def test_many_modules(self, before: int, count: int) -> None:
        """Wherever it stands, however long it is."""
        lines = "".join(f"dep\texample.org/m{i}\tv1.0.{i}\n" for i in range(count))
        found = go_build.parse(binary(before, "go1.25", MODULES + lines))
        self.assertEqual(len(found.linked), 2 + count)

    def test_the_words_are_somewhere_else_too(self) -> None:
        """Programs that read this have them as a text; it stands at sixteens."""
        data = binary(1, "go1.25", MODULES)
        found = go_build.parse(b"\x7fELF \xff Go buildinf: ".ljust(32) + data)
        self.assertEqual(found.main.version, "v2.1.0")

    @given(st.integers(0, len(binary(1, "go1.25", MODULES)) - 17))
    def test_cut_off(self, length: int) -> None:
        """Refused, never something wrong."""
        with self.assertRaises(ReleaseError):
            go_build.parse(binary(1, "go1.25", MODULES)[:length])

    def test_other_programs(self) -> None:
        """Not by Go, by an old Go, without modules."""
        old = bytearray(binary(1, "go1.17", MODULES))
        old[16 + 15] = 0
        for data, words in (
            (b"\x7fELF", "no build information"),
            (bytes(old), "before 1.18"),
            (binary(1, "go1.25", "path\tcommand-line-arguments\n"), "which module"),
        ):
            with self.assertRaises(ReleaseError) as caught:
                go_build.parse(data)
            self.assertIn(words, str(caught.exception))
