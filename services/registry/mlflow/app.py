"""The compatibility API put together."""

from __future__ import annotations

from typing import Any

from services.registry.handlers import Handlers
from services.registry.mlflow import files, logged_models, models, searching, tracking
from services.registry.mlflow.asked import Asked
from services.registry.mlflow.routing import App, Routes
from services.registry.mlflow.sources import Sources
from shared.identity.identity import Identity

SERVER_INFO = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {},
}
"""What the client asks before it uploads or downloads: everything goes through this server, in one piece."""


PATHS = tuple(f"/registry/{root}/" for root in ("api/2.0", "api/3.0", "ajax-api/2.0", "ajax-api/3.0"))
"""Where MLflow's client looks; other protocols have theirs beside them."""


def app(handlers: Handlers, identity: Identity) -> App:
    """Every route that MLflow's client finds here."""
    routes = Routes()

    @routes.get("server-info", "read")
    async def server_info(_: Asked) -> Any:
        return SERVER_INFO

    models.add_to(routes, handlers.models, Sources(handlers.models, handlers.tracking, handlers.files))
    searching.add_to(routes, handlers.models, handlers.searching)
    tracking.add_to(routes, handlers.tracking)
    logged_models.add_to(routes, handlers.tracking)
    files.add_to(routes, handlers.files, handlers.tracking)
    return App(routes, identity)
