"""
The bill of materials of the image, CycloneDX 1.6 in JSON.

It has the broker, every pinned Python package with the hashes that it is checked
against, the licence that its metadata declares and what it asks for; forgejo-mcp with
every Go module that its binary says it was linked from; and the name of the base image,
whose Debian packages a scanner of images finds. The same sources give the same bytes.
"""

import base64
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from attrs import frozen
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import Tool
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.commands import ReleaseError
from release.go_build import GoBuild, Module
from release.packages import Package

BROKER_LICENCE: Final = "MIT"
FORGEJO_MCP_LICENCE: Final = "GPL-3.0-only"
_NAMESPACE: Final = uuid.UUID("5f2f8f0c-53c3-5d4b-9d1e-6a1d2c0f6b6e")


@frozen
class Contents:
    """What is in an image."""

    version: str
    """Of the broker."""

    base: str
    """The image below, with its tag, such as C{python:3.13-slim-bookworm}."""

    packages: Sequence[Package]
    """Of Python, without the broker."""

    direct: Sequence[str]
    """The names of those that the broker itself asks for."""

    forgejo_mcp: Module
    """The module that the program is, in the version that was asked for."""

    build: GoBuild | None
    """What the program says of itself, or None when it is not at hand."""

    wheel_digest: str = ""
    """SHA-256 of the broker's wheel, hexadecimal; empty when there is none."""

    binary_digest: str = ""
    """SHA-256 of the image's forgejo-mcp, hexadecimal; empty when it is unknown."""


def render(contents: Contents, epoch: int) -> str:
    """
    @param contents: of the image.
    @param epoch: the time that the bill bears, in seconds, C{SOURCE_DATE_EPOCH}.
    @return: the bill, valid by the schema of CycloneDX.
    @raise ReleaseError: it would not be valid.
    """
    bom = Bom()
    broker = _broker(contents)
    base = _base(contents.base)
    pythons = {package.pin.name: _python(package) for package in contents.packages}
    program = _forgejo_mcp(contents)
    modules = [_module(module) for module in _linked(contents.build)]
    for component in (broker, base, program, *pythons.values(), *modules):
        bom.components.add(component)
    image = Component(
        type=ComponentType.CONTAINER,
        name="fjmcp-broker",
        version=contents.version,
        bom_ref=f"image:fjmcp-broker@{contents.version}",
        licenses=[LicenseExpression(f"{BROKER_LICENCE} AND {FORGEJO_MCP_LICENCE}")],
    )
    bom.metadata.component = image
    bom.register_dependency(image, [base, broker, program])
    bom.register_dependency(broker, _of(pythons, contents.direct))
    for package in contents.packages:
        asked = _of(pythons, package.asks_for)
        bom.register_dependency(pythons[package.pin.name], asked)
    bom.register_dependency(program, modules)
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.metadata.lifecycles.add(PredefinedLifecycle(LifecyclePhase.BUILD))
    bom.metadata.tools.tools.add(Tool(name="fjmcp-broker release"))
    bom.serial_number = uuid.uuid5(_NAMESPACE, _identity(bom, epoch))
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    validate(text)
    return text


def validate(text: str) -> None:
    """
    @param text: a bill of materials.
    @raise ReleaseError: it is not as the schema of CycloneDX wants it.
    """
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise ReleaseError(f"the bill of materials is not valid: {wrong}")


def _identity(bom: Bom, epoch: int) -> str:
    # A serial number is of one bill (CycloneDX, BOM identity): all that differs
    # between two of them is in here.
    whole = [f"{epoch}"]
    for component in bom.components:
        digests = sorted(digest.content for digest in component.hashes)
        whole.append(f"{component.bom_ref.value} {component.version} {digests}")
    return "\n".join(sorted(whole))


def _of(known: Mapping[str, Component], names: Iterable[str]) -> list[Component]:
    return [known[name] for name in names if name in known]


def _sha256(hexadecimal: str) -> list[HashType]:
    if not hexadecimal:
        return []
    return [HashType(alg=HashAlgorithm.SHA_256, content=hexadecimal)]


def _broker(contents: Contents) -> Component:
    purl = PackageURL("generic", None, "fjmcp-broker", contents.version)
    return Component(
        type=ComponentType.APPLICATION,
        name="fjmcp-broker",
        version=contents.version,
        bom_ref=purl.to_string(),
        purl=purl,
        scope=ComponentScope.REQUIRED,
        hashes=_sha256(contents.wheel_digest),
        licenses=[LicenseExpression(BROKER_LICENCE)],
    )


def _base(image: str) -> Component:
    name, _colon, tag = image.partition(":")
    purl = PackageURL("docker", None, name, tag)
    return Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=tag,
        bom_ref=purl.to_string(),
        purl=purl,
        scope=ComponentScope.REQUIRED,
    )


def _python(package: Package) -> Component:
    pin = package.pin
    purl = PackageURL("pypi", None, pin.name, pin.version)
    # Any of these files may be the one: hashes of the component itself would have to
    # be those of one file.
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(purl.to_string()),
        comment="the files that may be installed",
        hashes=[found for digest in pin.hashes for found in _sha256(digest)],
    )
    return Component(
        name=pin.name,
        version=pin.version,
        bom_ref=purl.to_string(),
        purl=purl,
        scope=ComponentScope.REQUIRED,
        licenses=_licences(package),
        external_references=[files],
    )


def _licences(package: Package) -> list[LicenseExpression | DisjunctiveLicense]:
    if package.licence_expression:
        return [LicenseExpression(package.licence_expression)]
    if package.licence_name:
        return [DisjunctiveLicense(name=package.licence_name)]
    return []


def _forgejo_mcp(contents: Contents) -> Component:
    module = contents.forgejo_mcp
    build = contents.build
    if build is not None and build.main.path != module.path:
        raise ReleaseError(f"the binary is {build.main.path}, not {module.path}")
    # What was built from a checkout does not know its version.
    if build is not None and build.main.version not in (module.version, "(devel)"):
        told = f"{build.main.version}, not {module.version}"
        raise ReleaseError(f"the binary is forgejo-mcp {told}")
    purl = _golang(module)
    return Component(
        type=ComponentType.APPLICATION,
        name=module.path,
        version=module.version,
        bom_ref=purl.to_string(),
        purl=purl,
        scope=ComponentScope.REQUIRED,
        hashes=_sha256(contents.binary_digest),
        licenses=[LicenseExpression(FORGEJO_MCP_LICENCE)],
    )


def _linked(build: GoBuild | None) -> list[Module]:
    if build is None:
        return []
    return [*build.linked, Module("stdlib", f"v{build.go}", "")]


def _golang(module: Module) -> PackageURL:
    namespace, _slash, name = module.path.rpartition("/")
    return PackageURL("golang", namespace or None, name, module.version)


def _module(module: Module) -> Component:
    purl = _golang(module)
    kind, _colon, digest = module.sum.partition(":")
    # The hash of the list of a module's files, which go.sum has: as cyclonedx-gomod
    # writes it.
    digests = _sha256(base64.b64decode(digest).hex()) if kind == "h1" else []
    return Component(
        name=module.path,
        version=module.version,
        bom_ref=purl.to_string(),
        purl=purl,
        scope=ComponentScope.REQUIRED,
        hashes=digests,
    )


def file_digest(data: bytes) -> str:
    """
    @param data: of a file.
    @return: SHA-256, hexadecimal.
    """
    return hashlib.sha256(data).hexdigest()
