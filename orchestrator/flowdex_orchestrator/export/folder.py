"""A folder of generated files: written whole, without leaving behind what was generated before.

{path: text} --> OUTPUT/path ..., and OUTPUT/.flowdex-export, the list of them
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from flowdex.errors import ConfigurationError

__all__ = ["LIST", "write_folder"]

LIST = ".flowdex-export"
"""The file that lists what was written, so that the next export knows what to remove."""


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write files, and remove those that an earlier export wrote and this one does not.

    Args:
        folder: Made where it is missing. What else is in it stays as it is.
        files: Path below the folder -> text.

    Raises:
        ConfigurationError: The folder cannot be written to.
    """
    try:
        for path in sorted(_written_before(folder) - files.keys()):
            (folder / path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: there is something of the operator's own
                (folder / path).parent.rmdir()
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        (folder / LIST).write_text("".join(f"{path}\n" for path in sorted(files)), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written to: {error.strerror}") from None


def _written_before(folder: Path) -> set[str]:
    try:
        lines = (folder / LIST).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return set()
    return {line for line in lines if line and ".." not in Path(line).parts and not Path(line).is_absolute()}
