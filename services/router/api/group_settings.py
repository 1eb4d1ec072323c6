"""A group's settings over HTTP: all of them with their defaults, one section set at a time, and what it was before."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, create_model

from services.router.api.groups import Body, IfMatch, Reader, Reason, expected
from services.router.errors import UnknownSection
from services.router.group_settings import SECTIONS, Section
from services.router.handlers.groups import By
from services.router.handlers.sections import Sections
from services.router.store import Setting
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Configurer = Annotated[Principal, require("configure", "group")]


class Change(Body):
    """A section as it is to be, whole; what is left out has its default."""

    settings: Section
    reason: Reason = ""
    expected_revision: int | None = Field(default=None, ge=1)


class SettingsView(BaseModel):
    """Every section of a group as it is in force at `revision`."""

    group: str
    revision: int
    settings: dict[str, dict[str, Any]]


class SettingView(BaseModel):
    """What a section was from a revision on, by whom and why."""

    revision: int
    settings: dict[str, Any]
    who: str
    why: str
    at: datetime

    @classmethod
    def of(cls, setting: Setting) -> SettingView:
        value = SECTIONS[setting.section].model_validate(setting.value).model_dump(mode="json")
        return cls(revision=setting.revision, settings=value, who=setting.who, why=setting.why, at=setting.at)


def router(sections: Sections) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["group settings"])

    async def shown(workspace: str, group: str, response: Response) -> SettingsView:
        entry, found = await sections.of(workspace, group)
        revision = entry.group.revision
        response.headers["etag"] = f'"{revision}"'
        values = {name: value.model_dump(mode="json") for name, value in found.all().items()}
        return SettingsView(group=group, revision=revision, settings=values)

    @routes.get("/groups/{group}/settings")
    async def get_settings(group: str, caller: Reader, response: Response) -> SettingsView:
        """What the group is told, defaults filled in; the ETag is the group's revision."""
        return await shown(caller.workspace, group, response)

    @routes.get("/groups/{group}/settings/{section}/history")
    async def history(group: str, section: str, caller: Reader) -> list[SettingView]:
        """Every value that was set, oldest first."""
        if section not in SECTIONS:
            raise UnknownSection(section, SECTIONS)
        return [SettingView.of(one) for one in await sections.history(caller.workspace, group, section)]

    def add(kind: type[Section]) -> None:
        """A route a section, so that each has its own schema."""
        body_type = create_model(f"{kind.__name__}Change", __base__=Change, settings=(kind, ...))

        async def put(
            group: str, body: Change, caller: Configurer, response: Response, if_match: IfMatch = None
        ) -> SettingsView:
            by = By(caller.workspace, caller.actor, body.reason, expected(if_match, body.expected_revision))
            await sections.put(by, group, body.settings)
            return await shown(caller.workspace, group, response)

        put.__annotations__["body"] = body_type
        put.__doc__ = f"{kind.__doc__}\n\nIn force at every gateway within the second."
        routes.put(f"/groups/{{group}}/settings/{kind.section}", name=f"put_{kind.section}")(put)

    for kind in SECTIONS.values():
        add(kind)
    return routes
