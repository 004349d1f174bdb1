"""Pinned requirements, and what packages say of their licences and needs."""

import zipfile
from email.parser import Parser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from release import packages, requirements
from release.commands import ReleaseError
from release.requirements import Pin
from tests.scratch_repository import TOP

ONE, TWO = "1" * 64, "2" * 64
IMAGE = requirements.image_environment((TOP / "Containerfile").read_text())
TEXT = f"""\
# A remark.
zope.Interface==8.7 \\
    --hash=sha256:{TWO} \\
    --hash=sha256:{ONE}
colorama==0.4 ; sys_platform == 'win32' \\
    --hash=sha256:{ONE}
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:{TWO}
"""


class RequirementsTests(SynchronousTestCase):
    """What is installed, out of what is written down."""

    def test_what_the_image_gets(self) -> None:
        """Names as everywhere, sorted hashes, nothing for other systems."""
        self.assertEqual(
            requirements.parse(TEXT, IMAGE),
            [Pin("zope-interface", "8.7", (ONE, TWO)), Pin("cffi", "2.1.1", (TWO,))],
        )

    def test_this_repository(self) -> None:
        """Every entry of the file is read."""
        text = (TOP / "deploy" / "container" / "requirements.txt").read_text()
        self.assertEqual(len(requirements.parse(text, IMAGE)), text.count("=="))

    def test_other_forms(self) -> None:
        """Not pinned, without a hash, from an address."""
        for line in ("attrs>=26", "attrs==26.1.0", "-r other.txt", "a @ https://b/c"):
            with self.assertRaises(ReleaseError):
                requirements.parse(f"{line}\n", IMAGE)

    def test_the_python_of_the_image(self) -> None:
        """As its Containerfile says; one that does not say is refused."""
        self.assertRegex(IMAGE["python_version"], r"^3\.\d+$")
        with self.assertRaises(ReleaseError):
            requirements.image_environment("FROM scratch\n")


class MetadataTests(SynchronousTestCase):
    """What a package says."""

    def described(self, *lines: str) -> packages.Package:
        """
        @param lines: of metadata.
        @return: what is understood of it.
        """
        metadata = Parser().parsestr("\n".join(["Name: a", "Version: 1", *lines, ""]))
        return packages.described(Pin("a", "1", (ONE,)), metadata, IMAGE)

    def test_an_expression_counts_most(self) -> None:
        """It is in SPDX by definition."""
        found = self.described(
            "License-Expression: MIT OR Apache-2.0",
            "Classifier: License :: OSI Approved :: BSD License",
        )
        self.assertEqual(found.licence_expression, "MIT OR Apache-2.0")

    def test_a_classifier_with_one_meaning(self) -> None:
        """Rather than the text, which may be all of the licence."""
        found = self.described(
            "License: Copyright",
            "        All of it",
            "Classifier: License :: OSI Approved :: MIT License",
        )
        self.assertEqual((found.licence_expression, found.licence_name), ("MIT", ""))

    def test_a_short_name(self) -> None:
        """In SPDX if that is what it is, otherwise as it stands."""
        self.assertEqual(self.described("License: MIT").licence_expression, "MIT")
        self.assertEqual(self.described("License: BSD").licence_name, "BSD")

    def test_a_classifier_with_several_meanings(self) -> None:
        """As it stands."""
        line = "Classifier: License :: OSI Approved :: BSD License"
        self.assertEqual(self.described(line).licence_name, "BSD License")

    def test_nothing(self) -> None:
        """Nothing is made up."""
        found = self.described()
        self.assertEqual((found.licence_expression, found.licence_name), ("", ""))

    def test_what_it_needs(self) -> None:
        """In the image, without extras."""
        found = self.described(
            "Requires-Dist: Zope.Interface >=5",
            "Requires-Dist: pytest ; extra == 'test'",
            "Requires-Dist: colorama ; sys_platform == 'win32'",
        )
        self.assertEqual(found.asks_for, ("zope-interface",))

    def test_wheels(self) -> None:
        """Read out of the files; one that is missing is named."""
        wheels = Path(self.mktemp())
        wheels.mkdir()
        with zipfile.ZipFile(wheels / "a-1-py3-none-any.whl", "w") as archive:
            archive.writestr("a-1.dist-info/METADATA", "Name: A\nVersion: 1\n")
        pins = [Pin("a", "1", (ONE,))]
        [found] = packages.read_all(pins, wheels, IMAGE)
        self.assertEqual(found.pin.name, "a")
        with self.assertRaises(ReleaseError) as caught:
            packages.read_all([*pins, Pin("b", "1", (ONE,))], wheels, IMAGE)
        self.assertEqual(str(caught.exception), "no wheel of b")
