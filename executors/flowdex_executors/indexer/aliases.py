"""Aliases of an embedded index: other names of its collections, all of which can be changed at once.

    aliases.json   {"alias": "collection", ...}

The file is replaced as a whole: written beside, flushed to disk, renamed. So a change of several aliases has happened
or has not, also when the power fails, as on a Qdrant server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from qdrant_client import models

from flowdex.errors import InternalError, NotFound

__all__ = ["AliasFile", "Operation"]

Operation = models.CreateAliasOperation | models.DeleteAliasOperation | models.RenameAliasOperation


class AliasFile:
    """The aliases of one folder; only the process that holds the folder's lock may make one.

    Args:
        directory: Folder of the index.

    Raises:
        InternalError: The file is there and cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "aliases.json"
        self._targets = self._read()

    @property
    def targets(self) -> dict[str, str]:
        """The collection of each alias."""
        return dict(self._targets)

    def change(self, operations: Sequence[Operation]) -> None:
        """Carry out all operations, in order, or none.

        Raises:
            NotFound: An alias to be renamed is not there.
        """
        targets = dict(self._targets)
        for operation in operations:
            if isinstance(operation, models.CreateAliasOperation):
                targets[operation.create_alias.alias_name] = operation.create_alias.collection_name
            elif isinstance(operation, models.DeleteAliasOperation):
                targets.pop(operation.delete_alias.alias_name, None)
            else:
                names = operation.rename_alias
                if names.old_alias_name not in targets:
                    raise NotFound(f"there is no alias {names.old_alias_name!r}")
                targets[names.new_alias_name] = targets.pop(names.old_alias_name)
        self._replace(targets)

    def forget(self, collection: str) -> None:
        """Remove all aliases of a collection."""
        rest = {alias: target for alias, target in self._targets.items() if target != collection}
        if rest != self._targets:
            self._replace(rest)

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(alias): str(target) for alias, target in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            raise InternalError(f"{self._path}, which names the index's collections, is damaged: {error}") from None

    def _replace(self, targets: dict[str, str]) -> None:
        staging = self._path.with_suffix(".new")
        with staging.open("w", encoding="utf-8") as file:
            json.dump(targets, file)
            file.flush()
            os.fsync(file.fileno())
        staging.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._targets = targets
