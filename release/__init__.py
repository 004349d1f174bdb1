"""
How a version is numbered, described, built and looked at: C{make bump}, C{changelog},
C{sbom} and C{release}. No part of what is installed; docs/releasing.md explains it.
"""
