"""What the hostile tests share: folders that the workers' account may enter."""

from __future__ import annotations

from tests.integration.conftest import folder, folders

__all__ = ["folder", "folders"]
