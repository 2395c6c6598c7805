"""Parts of MONAI Label's interface that routes receive as arguments; the application holds them in its ``state``."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from decathlete.serving.monai_label.datastore import Datastore
from decathlete.serving.monai_label.image_sessions import ImageSessions


async def _datastore(request: Request) -> Datastore:
    found: Datastore = request.app.state.datastore
    return found


async def _image_sessions(request: Request) -> ImageSessions:
    found: ImageSessions = request.app.state.image_sessions
    return found


AppDatastore = Annotated[Datastore, Depends(_datastore)]
"""The images and label maps of the application."""
AppImageSessions = Annotated[ImageSessions, Depends(_image_sessions)]
"""The images that viewers uploaded for several requests."""
