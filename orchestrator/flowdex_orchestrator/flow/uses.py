"""What the text under `uses` is: a class, a configuration file, a folder with one, or something that is not run here.

executors/cleaner/config.yml --config_file--> the same
executors/cleaner            --config_file--> executors/cleaner/config.yml, as an executor lies on disk for Jina
package.Class, Class         --config_file--> None
docker://, jinahub://, ...   --check_local--> ConfigurationError, with what to do instead
"""

from __future__ import annotations

import re
from pathlib import Path

from flowdex.errors import ConfigurationError

__all__ = ["check_local", "config_file"]

_SUFFIXES = (".yml", ".yaml", ".jaml")
_NAMES = ("config.yml", "config.yaml")
_HUB = re.compile(r"jina(?:hub|ai)(?:\+[a-z]+)?://")


def config_file(uses: str, folder: Path) -> str | None:
    """The configuration file that `uses` names, relative to the flow file's folder; None where it names a class.

    Args:
        uses: As in the flow file.
        folder: The flow file's folder.

    Raises:
        ConfigurationError: It is a folder without one.
    """
    if uses.endswith(_SUFFIXES):
        return uses
    if "://" in uses or not (folder / uses).is_dir():
        return None
    for name in _NAMES:
        if (folder / uses / name).is_file():
            return str(Path(uses) / name)
    if "/" in uses or uses.startswith("."):
        raise ConfigurationError(
            f"uses: the folder {uses} has no config.yml; name the class instead, and its file under py_modules"
        )
    return None  # a folder that happens to be called as the class is


def check_local(uses: str) -> None:
    """Refuse what stock Jina fetches from somewhere else.

    Raises:
        ConfigurationError: `uses` names a container or a package of the hub.
    """
    if _HUB.match(uses):
        raise ConfigurationError(
            f"uses: {uses} names a package of Jina's hub, which flowdex does not download; get the executor's source "
            "folder, install its requirements.txt, and write `uses: FOLDER` (the one with config.yml), or start it "
            "yourself and mark the executor `external: true`"
        )
    if "://" in uses:
        raise ConfigurationError(
            f"uses: {uses} names a container, which is not run here; start it yourself and mark the executor "
            "`external: true`, or name a Python class"
        )
