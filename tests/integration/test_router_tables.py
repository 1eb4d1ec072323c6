"""Inference tables over the API: browsed as of any moment, archived by age, erased from, deleted with their group."""

from __future__ import annotations

import asyncio
import hashlib
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pyarrow.parquet
import pytest
from router_story import NAMES, asset, deploy, named

from services.router.domain import log_table
from services.router.handlers.erasures import RECEIPT_TYPE
from services.router.worker import DayKeeper, TableKeeper
from shared.db.database import EVERY_WORKSPACE
from shared.events.router import GroupChanged
from shared.identity import dsse
from shared.ids import canonical, new_id
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(150)
GROUPS = "/router/v1/groups"
NOW = datetime.now(UTC).replace(microsecond=0)


async def group(client: httpx.AsyncClient, name: str, **rows: Any) -> None:
    made = await client.post(GROUPS, json={"name": name, "champion": named(asset(1))})
    assert made.status_code == 201, made.text
    if rows:
        body = {"settings": rows, "reason": "as declared", "expected_revision": 1}
        told = await client.put(f"{GROUPS}/{name}/settings/rows", json=body)
        assert told.status_code == 200, told.text


async def put_rows(installation: Installation, name: str, units: list[str], at: datetime = NOW) -> list[UUID]:
    """Rows as a shipper brings them, a second apart; with texts that CSV and JSON have to escape."""
    ids = [new_id() for _ in units]
    async with installation.services["router"].database.begin("default") as tx:
        await tx.connection.fetchval("SELECT inference_log_day($1, $2)", name, at.date())
        await tx.connection.executemany(
            f"INSERT INTO {log_table(name)} (request_id, received_at, status, latency_ms, revision, workspace, asset, "
            "version, digest, arm, unit, score, prediction, trace_id, cost_usd, features, input, output, "
            "client_request_id) VALUES ($1, $2, 200, 1.25, 1, 'default', 'mm:model/tumour', 1, $3, 'champion', $4, "
            "0.1, '', 't', 0.000120, $5, $6, NULL, $7)",
            [
                (
                    request_id, at + timedelta(seconds=place), asset(1).digest, unit, {"AGEP": place},
                    {"text": 'a "quoted",\nline of ' + unit, "list": [1, None]},
                    'line\nbreak, "q"' if place else None,
                )
                for place, (request_id, unit) in enumerate(zip(ids, units, strict=True))
            ],
        )  # fmt: skip
    return ids


async def count(installation: Installation, name: str) -> int:
    async with installation.services["router"].database.begin("default") as tx:
        return int(await tx.connection.fetchval(f"SELECT count(*) FROM {log_table(name)}"))


def worker(installation: Installation, kind: type) -> Any:
    return next(one for one in installation.services["router"].workers if isinstance(one, kind))


async def items(client: httpx.AsyncClient, path: str, **params: Any) -> list[dict[str, Any]]:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_rows_are_browsed_by_any_column_page_by_page_and_as_of_a_moment(installation: Installation) -> None:
    key = installation.key("user:rita", "owner")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await group(client, "live")
        start = NOW - timedelta(hours=2)
        ids = await put_rows(installation, "live", [f"u{number % 3}" for number in range(30)], start)
        rows = f"{GROUPS}/live/inferences"

        seen, token = [], None
        while True:
            answer = (
                await client.get(rows, params={"max_results": 7, **({"page_token": token} if token else {})})
            ).json()
            seen.extend(UUID(one["request_id"]) for one in answer["items"])
            token = answer["next_page_token"]
            if token is None:
                break
        assert seen == ids[::-1], "newest first, each once"
        assert len(await items(client, rows, where=["unit=u1", "features.AGEP>=10"])) == 7
        assert len(await items(client, rows, where="input~line of u2")) == 10
        bad = await client.get(rows, params={"where": "colour=red"})
        assert (bad.status_code, bad.json()["code"]) == (422, "filter-refused")
        other = await client.get(rows, params={"where": "unit=u1", "page_token": answer_token(seen)})
        assert other.status_code == 422

        # as of: rows until then, and labels as they were known then
        for label in (0, 1):
            said = {"request_id": str(ids[5]), "value": label}
            assert (await client.post(f"{GROUPS}/live/feedback", json=said)).status_code == 202
        words = await items(client, f"{rows}/{ids[5]}/feedback")
        assert [(one["label"], one["counts"]) for one in words] == [("1", True), ("0", False)]
        between = words[1]["received_at"]
        assert [row["truth"] for row in await items(client, rows, where=f"request_id={ids[5]}")] == ["1"]
        then = await items(client, rows, where=f"request_id={ids[5]}", as_of=between)
        assert [row["truth"] for row in then] == ["0"]
        whole = (await client.get(f"{rows}/{ids[5]}", params={"as_of": between})).json()
        assert (whole["truth"], len(whole["feedback"])) == ("0", 1)
        moment = (start + timedelta(seconds=9)).isoformat()
        assert [row["truth"] for row in await items(client, rows, as_of=moment)] == [None] * 9
        gone = await client.get(f"{rows}/{ids[20]}", params={"as_of": moment})
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown-request")

        exported = await client.get(f"{GROUPS}/live/inferences:export", params={"where": "unit=u1"})
        table = pyarrow.parquet.read_table(io.BytesIO(exported.content))
        assert table.num_rows == 10 and set(table["unit"].to_pylist()) == {"u1"}


def answer_token(seen: list[UUID]) -> str:
    from shared.http import PageToken

    return PageToken("inferences", "default", "live", "another query").make([NOW.isoformat(), seen[-1]])


async def test_any_number_of_words_before_and_after_the_row_and_all_are_kept(installation: Installation) -> None:
    key = installation.key("user:rita", "owner")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await group(client, "live")
        request_id = new_id()
        said = [{"request_id": str(request_id), "metric": "clicks", "value": number} for number in range(250)]
        taken = (await client.post(f"{GROUPS}/live/feedback", json=said)).json()
        assert taken == {"received": 250, "unmatched": 1}
        path, seen, token = f"{GROUPS}/live/inferences/{request_id}/feedback", [], None
        while True:
            params = {"max_results": 100, **({"page_token": token} if token else {})}
            page = (await client.get(path, params=params)).json()
            seen.extend(page["items"])
            token = page["next_page_token"]
            if token is None:
                break
        assert len({one["id"] for one in seen}) == 250, "no row is there yet, and nothing is lost"
        assert [one["counts"] for one in seen] == [True] + [False] * 249


async def test_old_days_become_archives_that_say_the_same_and_only_then_go(installation: Installation) -> None:
    key = installation.key("user:rita", "owner")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await group(client, "kept", retention_days=2)
        await group(client, "dropped", retention_days=2, at_deletion="drop")
        old = NOW - timedelta(days=5)
        ids = await put_rows(installation, "kept", ["ada", "bo", ""], old)
        await put_rows(installation, "kept", ["new"])
        await put_rows(installation, "dropped", ["ada"], old)
        before = (await client.get(f"{GROUPS}/kept/inferences/{ids[1]}")).json()

        await worker(installation, DayKeeper).keep()
        assert (await count(installation, "kept"), await count(installation, "dropped")) == (1, 0)
        assert await items(client, f"{GROUPS}/dropped/archives") == []
        (archive,) = await items(client, f"{GROUPS}/kept/archives")
        assert (archive["row_count"], archive["day"], archive["cause"]) == (3, str(old.date()), "retention")
        content = (await client.get(f"/router/v1/archives/{archive['id']}/content")).content
        assert "sha256:" + hashlib.sha256(content).hexdigest() == archive["digest"]
        assert len(content) == archive["bytes"]
        rows = await items(client, f"/router/v1/archives/{archive['id']}/rows")
        assert [row["request_id"] for row in rows] == [str(one) for one in ids]
        row = rows[1]
        for name in ("unit", "score", "features", "input", "output", "latency_ms", "client_request_id", "tags"):
            assert row[name] == before[name], name
        assert datetime.fromisoformat(row["received_at"]) == datetime.fromisoformat(before["received_at"])
        assert (row["cost_usd"], row["prediction"], rows[2]["unit"]) == ("0.000120", "", "")
        assert rows[0]["client_request_id"] is None
        paged = (await client.get(f"/router/v1/archives/{archive['id']}/rows", params={"max_results": 2})).json()
        params = {"max_results": 2, "page_token": paged["next_page_token"]}
        rest = (await client.get(f"/router/v1/archives/{archive['id']}/rows", params=params)).json()
        assert [len(paged["items"]), len(rest["items"]), rest["next_page_token"]] == [2, 1, None]

        # what was changed in the store is not passed on as if it were what was archived
        (file,) = (installation.folder / "artefacts").glob(f"*/{archive['digest'].removeprefix('sha256:')[2:]}")
        file.chmod(0o600)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        bad = await client.get(f"/router/v1/archives/{archive['id']}/rows")
        assert (bad.status_code, bad.json()["code"]) == (422, "digest-mismatch")


async def test_a_day_that_cannot_be_archived_stays(installation: Installation) -> None:
    key = installation.key("user:rita", "owner")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await group(client, "kept", retention_days=2)
        await put_rows(installation, "kept", ["ada"], NOW - timedelta(days=5))
        (installation.folder / "artefacts").write_text("a file where the folder should be")
        await worker(installation, DayKeeper).keep()
        assert await count(installation, "kept") == 1
        assert await items(client, f"{GROUPS}/kept/archives") == []


async def test_a_subject_is_erased_from_tables_words_and_archives_and_a_signed_receipt_stays(
    installation: Installation,
) -> None:
    owner, viewer = installation.key("user:rita", "owner"), installation.key("user:vic", "viewer")
    neighbour = installation.key("user:nora", "owner", workspace="other")
    await installation.start("router")
    async with installation.client("router", owner) as client:
        await deploy(installation, client, asset(1))
        hashed = [{"field": "unit", "action": "hash"}]
        await group(client, "one", retention_days=2)
        await group(client, "two", fields=hashed)
        await put_rows(installation, "one", ["ada lovelace", "bo", "ada lovelace"], NOW - timedelta(days=5))
        await worker(installation, DayKeeper).keep()
        (before,) = await items(client, f"{GROUPS}/one/archives")
        ids = await put_rows(installation, "one", ["ada lovelace", "bo"])
        async with installation.services["router"].database.begin("default") as tx:
            keyring = worker_keyring(installation)
            as_hash = (await keyring.of(tx, "two")).hashed(b"ada lovelace")
        await put_rows(installation, "two", [as_hash, "bo"])
        for one in ids:
            await client.post(f"{GROUPS}/one/feedback", json={"request_id": str(one), "value": 1})

        body = {"subject": "ada lovelace", "reason": "ticket 7"}
        async with installation.client("router", viewer) as other:
            assert (await other.post("/router/v1/erasures", json=body)).status_code == 403
        nobody = await client.post("/router/v1/erasures", json={"reason": "?"})
        assert (nobody.status_code, nobody.json()["code"]) == (422, "erasure-refused")
        unknown = await client.post("/router/v1/erasures", json={**body, "groups": ["one", "none"]})
        assert (unknown.status_code, await count(installation, "one")) == (404, 2), "all or nothing"

        answer = await client.post("/router/v1/erasures", json=body)
        assert answer.status_code == 201, answer.text
        receipt = answer.json()["receipt"]
        gone = {one["group"]: one for one in receipt["payload"]["groups"]}
        assert (gone["one"]["rows"], gone["one"]["words"], gone["one"]["archived"]) == (1, 1, 2)
        assert (gone["two"]["rows"], gone["two"]["archived"]) == (1, 0)
        assert [row["unit"] for row in await items(client, f"{GROUPS}/one/inferences")] == ["bo"]
        assert [row["unit"] for row in await items(client, f"{GROUPS}/two/inferences")] == ["bo"]
        assert await items(client, f"{GROUPS}/one/inferences/{ids[0]}/feedback") == []
        assert len(await items(client, f"{GROUPS}/one/inferences/{ids[1]}/feedback")) == 1

        (after,) = await items(client, f"{GROUPS}/one/archives")
        assert (after["row_count"], after["cause"]) == (1, "erasure")
        (left,) = await items(client, f"/router/v1/archives/{after['id']}/rows")
        assert left["unit"] == "bo"
        assert (await client.get(f"/router/v1/archives/{before['id']}")).status_code == 404
        files = list((installation.folder / "artefacts").glob("*/*"))
        assert len(files) == 1, "the bytes that held her rows are gone"

        trusted = {"router": dsse.read_trust_file(installation.folder / "trust.json")["router"]}
        envelope = dsse.Envelope.model_validate(receipt["envelope"])
        assert dsse.verify(envelope, trusted, RECEIPT_TYPE) == canonical(receipt["payload"])
        assert "ada lovelace" not in answer.text
        salt = bytes.fromhex(receipt["payload"]["subject"]["salt"])
        assert hashlib.sha256(salt + b"ada lovelace").hexdigest() in receipt["payload"]["subject"]["salted_sha256"]
        again = (await client.get(answer.headers["location"])).json()
        assert again["receipt"] == receipt and again["who"] == "user:rita"
        async with installation.client("router", neighbour) as other:
            assert (await other.get(answer.headers["location"])).status_code == 404

        filtered = {"where": ["features.AGEP>=1"], "groups": ["two"], "reason": "ticket 8"}
        found = (await client.post("/router/v1/erasures", json=filtered)).json()
        assert found["receipt"]["payload"]["groups"][0]["rows"] == 1
        assert await count(installation, "two") == 0


def worker_keyring(installation: Installation) -> Any:
    from services.router.gateway.sealing import FileMasterKey
    from services.router.handlers.keys import GroupKeyring
    from services.router.tables.store import TableStore
    from shared.db.queries import load

    master = FileMasterKey(installation.folder / "master-key.json")
    return GroupKeyring(TableStore(load("services.router.tables")), master)


async def test_what_was_encrypted_is_revealed_to_who_may_and_to_nobody_else(installation: Installation) -> None:
    owner, viewer = installation.key("user:rita", "owner"), installation.key("user:vic", "viewer")
    auditor = installation.key("user:ann", "auditor")
    await installation.start("router")
    async with installation.client("router", owner) as client:
        await deploy(installation, client, asset(1))
        await group(client, "sealed", fields=[{"field": "unit", "action": "encrypt"}])
        async with installation.services["router"].database.begin("default") as tx:
            text = (await worker_keyring(installation).of(tx, "sealed")).encrypted("ada", stable=True)
        (request_id,) = await put_rows(installation, "sealed", [text])
        path = f"{GROUPS}/sealed/inferences/{request_id}"
        assert (await client.get(path)).json()["unit"] == text
        async with installation.client("router", viewer) as other:
            assert (await other.get(f"{path}/revealed")).status_code == 403
        async with installation.client("router", auditor) as other:
            assert (await other.get(f"{path}/revealed")).json()["unit"] == "ada"
        why = await client.get(f"{path}/why")
        assert (why.status_code, why.json()["code"]) == (409, "unit-not-kept")


async def test_without_a_master_key_nothing_is_encrypted_and_hashes_can_be_had(installation: Installation) -> None:
    key = installation.key("user:rita", "owner")
    await installation.start("router", master_key_file=None)
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await group(client, "live")
        body = {"settings": {"fields": [{"field": "unit", "action": "encrypt"}]}, "expected_revision": 1}
        refused = await client.put(f"{GROUPS}/live/settings/rows", json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "seal-broken")
        assert "MINTMARK_ROUTER_MASTER_KEY_FILE" in refused.json()["detail"]
        assert (await client.get(f"{GROUPS}/live")).json()["revision"] == 1, "nothing half-written"
        body["settings"] = {"fields": [{"field": "unit", "action": "hash"}]}
        assert (await client.put(f"{GROUPS}/live/settings/rows", json=body)).status_code == 200


async def groups_told(installation: Installation, count: int) -> list[GroupChanged]:
    async def look() -> list[GroupChanged]:
        return await installation.events(GroupChanged)

    return await eventually(look, lambda found: len(found) >= count, what="group.changed")


async def serving(installation: Installation, name: str) -> dict[bool, int]:
    """The registry's lineage edges into a group: how many hold, and how many have ended."""
    async with installation.services["registry"].database.begin("default") as tx:
        sql = "SELECT count(*) FILTER (WHERE until IS NULL), count(until) FROM edge WHERE destination = $1"
        holding, ended = await tx.connection.fetchrow(sql, f"group:{name}")
    return {True: holding, False: ended}


async def test_a_group_is_deleted_once_its_rows_are_archived(installation: Installation) -> None:
    key = installation.key("user:rita", "owner")
    await installation.start("registry")
    await installation.start("router", deletion_settle_s=0, tables_poll_s=0.2)
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await group(client, "old")
        await put_rows(installation, "old", ["ada", "bo"], NOW - timedelta(days=1))
        await put_rows(installation, "old", ["cy"])
        body = {"confirm": "older", "reason": "nobody asks it", "expected_revision": 1}
        unsure = await client.post(f"{GROUPS}/old:delete", json=body)
        assert (unsure.status_code, unsure.json()["code"]) == (409, "deletion-refused")
        stale = await client.post(f"{GROUPS}/old:delete", json={**body, "confirm": "old", "expected_revision": 9})
        assert (stale.status_code, stale.json()["code"]) == (409, "revision-conflict")
        asked = await client.post(f"{GROUPS}/old:delete", json={**body, "confirm": "old"})
        assert (asked.status_code, asked.json()["state"], asked.json()["policy"]) == (202, "pending", "archive")

        async def look() -> dict[str, Any]:
            found: dict[str, Any] = (await client.get(f"{GROUPS}/old/deletion")).json()
            return found

        done = await eventually(look, lambda found: found["state"] == "done", what="the deletion")
        assert done["row_count"] == 3
        archives = await items(client, f"{GROUPS}/old/archives")
        assert sum(one["row_count"] for one in archives) == 3
        assert {one["cause"] for one in archives} == {"deletion"}
        for path in ("", "/inferences", "/settings"):
            assert (await client.get(f"{GROUPS}/old{path}")).status_code == 404, path
        assert await items(client, GROUPS) == []
        again = await client.post(GROUPS, json={"name": "old", "champion": named(asset(1))})
        assert (again.status_code, again.json()["code"]) == (409, "group-name-taken")
        assert len((await client.get(f"{GROUPS}/old/history")).json()) == 2
        told = await groups_told(installation, 3)
        assert [(one.revision, one.state, len(one.arms)) for one in told] == [
            (1, "serving", 1), (2, "retired", 0), (2, "deleted", 0),
        ]  # fmt: skip
        assert {one.actor.id for one in told} == {"user:rita"}
        await eventually(
            lambda: serving(installation, "old"), lambda edges: edges == {True: 0, False: 1}, what="lineage"
        )
    async with installation.services["router"].database.begin(EVERY_WORKSPACE) as tx:
        left = "SELECT count(*) FROM pg_class WHERE relname ~ '^(inference_(log|view)_|p[0-9]{8}_)old'"
        assert await tx.connection.fetchval(left) == 0


async def test_rows_that_no_archive_keeps_go_only_when_a_second_person_agrees(installation: Installation) -> None:
    keys = {who: installation.key(f"user:{who}", "release-manager", "operator") for who in ("rita", "bea")}
    await installation.start("router", deletion_settle_s=0, tables_poll_s=3600)
    async with (
        installation.client("router", keys["rita"]) as rita,
        installation.client("router", keys["bea"]) as bea,
    ):
        await deploy(installation, rita, asset(1))
        await group(rita, "test", at_deletion="drop")
        await put_rows(installation, "test", ["ada"])
        keeper = worker(installation, TableKeeper)
        nothing = await bea.post(f"{GROUPS}/test:agree-to-deletion")
        assert (nothing.status_code, nothing.json()["code"]) == (404, "no-deletion")
        body = {"confirm": "test", "reason": "a trial", "expected_revision": 2}
        asked = await rita.post(f"{GROUPS}/test:delete", json=body)
        assert asked.json()["state"] == "waiting", asked.text

        # retired: it serves nothing and changes no more, but its rows can be read
        shown = (await rita.get(f"{GROUPS}/test")).json()
        assert "to be deleted" in shown["unavailable"]
        change = {"settings": {}, "expected_revision": shown["revision"]}
        late = await rita.put(f"{GROUPS}/test/settings/rows", json=change)
        assert (late.status_code, late.json()["code"]) == (409, "group-retired")
        assert len(await items(rita, f"{GROUPS}/test/inferences")) == 1

        alone = await rita.post(f"{GROUPS}/test:agree-to-deletion")
        assert (alone.status_code, alone.json()["code"]) == (403, "second-person-needed")
        await keeper.keep()
        assert await count(installation, "test") == 1, "one person is not enough"
        kept = await bea.post(f"{GROUPS}/test:keep")
        assert (kept.status_code, kept.json()["state"]) == (200, "kept")
        assert (await rita.get(f"{GROUPS}/test")).json()["unavailable"] is None
        assert (await bea.post(f"{GROUPS}/test:agree-to-deletion")).status_code == 404

        revision = (await rita.get(f"{GROUPS}/test")).json()["revision"]
        await rita.post(f"{GROUPS}/test:delete", json={**body, "expected_revision": revision})
        agreed = await asyncio.gather(*(bea.post(f"{GROUPS}/test:agree-to-deletion") for _ in range(3)))
        assert {one.status_code for one in agreed} == {200}
        assert agreed[0].json()["agreed_by"] == "user:bea"
        await keeper.keep()
        done = (await bea.get(f"{GROUPS}/test/deletion")).json()
        assert (done["state"], done["row_count"]) == ("done", 1)
        assert await items(rita, f"{GROUPS}/test/archives") == []
        told = [one for one in await groups_told(installation, 6) if one.revision > 2]
        assert [(one.revision, one.state, len(one.arms)) for one in told] == [
            (3, "retired", 0), (4, "serving", 1), (5, "retired", 0), (5, "deleted", 0),
        ]  # fmt: skip


async def test_the_view_is_made_with_the_group_and_follows_a_promotion(installation: Installation) -> None:
    key = installation.key("user:rita", "owner")
    await installation.start("router", tables_poll_s=0.2)
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await group(client, "live")

        async def columns() -> set[str]:
            async with installation.services["router"].database.begin("default") as tx:
                sql = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0"
                return {row["attname"] for row in await tx.connection.fetch(sql, "inference_view_live")}

        assert set(NAMES) < await columns()
        async with installation.services["router"].database.begin("default") as tx:
            await tx.connection.execute('UPDATE served_version SET signature = \'{"inputs": [{"name": "only"}]}\'')
        await eventually(columns, lambda found: "only" in found and not set(NAMES) & found, what="the new view")
