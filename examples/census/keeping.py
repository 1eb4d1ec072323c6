"""The fourth chapter: what a group allows and what it costs, what its rows keep of a person, and a batch."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from live import check, drive, requests_of
from pipeline import sha256
from story import World, etag_of, fail, tell
from train import ALL_FEATURES

BATCH_ROWS = 500
PERSON = "person-3"
ALLOWED, ASKED = 40, 120


async def capped(world: World, versions: list[dict[str, Any]], rows: Any) -> None:
    """A limit that parallel calls do not get past, and a price that stands in every row."""
    world.say(f"A cap of {ALLOWED} requests a caller: {ASKED} at once do not get past it; each answer has its price")
    path = f"/router/v1/groups/{world.group}"
    settings = {
        "limits": [{"scope": "key", "unit": "requests", "most": ALLOWED, "window_s": 86_400}],
        "prices": [{"urn": versions[0]["urn"], "per_request": "0.0004"}],
    }
    body = {"settings": settings, "reason": "guests may look around"}
    await world.call("olga", "PUT", f"{path}/settings/caps", json=body, headers={"if-match": await etag_of(world)})
    await asyncio.sleep(1.5)
    headers = {"authorization": f"Bearer {world.keys['guest']}"}
    bodies = [request for _, _, request in requests_of(rows, 0, ASKED)]
    url = f"/v2/models/{world.group}/infer"
    answers = await asyncio.gather(*(world.gateway.post(url, json=one, headers=headers) for one in bodies))
    statuses = Counter(answer.status_code for answer in answers)
    refused = next((answer for answer in answers if answer.status_code == 429), None)
    if refused is None or not 0 < statuses[200] <= ALLOWED or set(statuses) != {200, 429}:
        fail(f"of {ASKED} requests {dict(statuses)} were answered, where {ALLOWED} are allowed")
    good = next(answer for answer in answers if answer.status_code == 200)
    row = await row_of(world, good.headers["x-mintmark-request-id"])
    tell(f"{statuses[200]} answered, {statuses[429]} refused: {refused.json()['code']}, {refused.json()['detail']}")
    tell(f"the row of an answered one: cost {row['cost_usd']} USD; the refused ones are rows too")
    body = {"settings": {"prices": settings["prices"]}, "reason": "enough of guests"}
    await world.call("olga", "PUT", f"{path}/settings/caps", json=body, headers={"if-match": await etag_of(world)})
    await asyncio.sleep(1.0)


async def minimised(world: World, rows: Any) -> None:
    """Field rules, consent and erasure."""
    world.say("What a row keeps of a person: fields hashed or left out, consent asked, a subject forgotten")
    path = f"/router/v1/groups/{world.group}"
    fields = [
        {"field": "unit", "action": "hash"},
        {"field": "features.SEX", "action": "drop"},
        {"field": "features.RAC1P", "action": "drop"},
    ]
    body = {"settings": {"fields": fields}, "reason": "the rows need not know"}
    await world.call("olga", "PUT", f"{path}/settings/rows", json=body, headers={"if-match": await etag_of(world)})
    await asyncio.sleep(1.0)
    told = await drive(world, rows, 3, 4)
    silent = await drive(world, rows, 4, 5, headers={"x-mintmark-consent": "none"})
    for traffic, what in ((told, "a minimised row"), (silent, "a row without consent")):
        check(traffic, what)
        row = await row_of(world, traffic.answers[0][0])
        sent = {one["name"]: one["data"] for one in (row["input"] or {}).get("inputs", ())}
        if "SEX" in (row["features"] or {}) or sent.get("SEX") or row["unit"] in (PERSON, "person-4"):
            fail(f"{what} keeps what it should not: {row}")
        features = ", ".join(row["features"]) if row["features"] else "none"
        tell(f"{what}: unit {row['unit'][:24] or 'none'}…, features {features}, score {row['score']}")
    erasure = await world.call(
        "olga", "POST", "/router/v1/erasures", json={"subject": PERSON, "groups": [world.group], "reason": "asked to"}
    )
    (gone,) = erasure["receipt"]["payload"]["groups"]
    signed = "signed" if erasure["receipt"]["envelope"] else "not signed"
    tell(f"{PERSON} erased: {gone['rows']} rows, {gone['words']} words, {gone['digest'][:19]}…; receipt {signed}")
    left = await world.call("auditor", "GET", f"{path}/inferences", params={"unit": PERSON})
    if left["items"] or gone["rows"] < 1:
        fail(f"rows of {PERSON} are still there, or none was")


async def row_of(world: World, request_id: str) -> dict[str, Any]:
    """A row, which is queryable within a second of its answer."""
    path = f"/router/v1/groups/{world.group}/inferences/{request_id}"
    for _ in range(30):
        answer: httpx.Response = await world.http.get(path, headers=world.headers("auditor"))
        if answer.status_code == 200:
            return dict(answer.json())
        await asyncio.sleep(0.1)
    return fail(f"the row of {request_id} is not there: {answer.text[:200]}")


async def batched(world: World, rows: Any) -> None:
    """A Parquet file in, one out, each row a request like any other."""
    world.say(f"A batch: {BATCH_ROWS} rows of a Parquet file, asked through the same gateway")
    table = (
        rows.slice(0, BATCH_ROWS)
        .select(list(ALL_FEATURES))
        .append_column("id", pa.array([f"row-{number}" for number in range(BATCH_ROWS)]))
    )
    content = io.BytesIO()
    pq.write_table(table, content)
    digest = sha256(content.getvalue())
    await world.call("app", "PUT", f"/router/v1/batch-files/{digest}", content=content.getvalue())
    body = {"input": digest, "format": "parquet", "shape": "features", "id_field": "id", "concurrency": 8}
    path = f"/router/v1/groups/{world.group}/batches"
    batch = await world.call("app", "POST", path, json=body)
    for _ in range(300):
        if batch["state"] not in ("queued", "running"):
            break
        await asyncio.sleep(0.1)
        batch = await world.call("app", "GET", f"{path}/{batch['id']}")
    if batch["state"] != "done" or batch["failed"]:
        fail(f"the batch ended as {batch}")
    answer = await world.http.get(f"/router/v1/batch-files/{batch['output']}", headers=world.headers("app"))
    found = pq.read_table(io.BytesIO(answer.raise_for_status().content))
    if found.num_rows != BATCH_ROWS or sha256(answer.content) != batch["output"]:
        fail("the batch's output is not whole")
    tell(
        f"{batch['state']}: {batch['recorded']} of {batch['total']}, {batch['failed']} errors, {batch['output'][:19]}…"
    )
    tell(f"columns {', '.join(found.column_names)}")
