"""Puts the shipped recipes into built packages; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """The recipes stand at the top of the repository, where they are found first, and inside installed packages."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "mgs_trl" / "recipes"
            shutil.copytree(Path(__file__).parent / "recipes", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithRecipes})
