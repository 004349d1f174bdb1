"""Writes which build this is into the wheel; everything else is in setup.cfg."""

import json
import os
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithInformation(build_py):
    """Adds the file that C{fjmcp_broker.version} reads."""

    def run(self) -> None:
        """Build as usual, then write what the environment says of the build."""
        super().run()
        revision = os.environ.get("GIT_REVISION", "")
        date = os.environ.get("BUILD_DATE", "")
        if (revision or date) and not self.editable_mode:
            facts = {"revision": revision, "build_date": date}
            target = Path(self.build_lib, "fjmcp_broker", "_build.json")
            target.write_text(json.dumps(facts), encoding="utf-8")


setup(cmdclass={"build_py": BuildWithInformation})
