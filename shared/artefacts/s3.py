"""The artefact store in an S3 bucket. boto3 blocks, so every call runs in a thread."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from shared.artefacts.store import CHUNK, checked, written
from shared.errors import IntegrityFailed, NotFound, TooLarge, Unavailable
from shared.ids import sha256

T = TypeVar("T")
SPOOL_BYTES = 16 * 1024 * 1024


class S3Store:
    """`s3://<bucket>/<prefix>/ab/cdef…`."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None = None) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            config=Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=5, read_timeout=60),
        )

    def _key(self, digest: str) -> str:
        name = checked(digest)
        return "/".join(part for part in (self._prefix, name[:2], name[2:]) if part)

    async def _call(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(call)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
                raise NotFound("the artefact is not in the store") from error
            raise Unavailable(f"S3 refused: {error.response.get('Error', {}).get('Code')}") from error
        except BotoCoreError as error:
            raise Unavailable(f"S3 does not answer: {error}") from error

    async def put(self, chunks: AsyncIterator[bytes], expected: str | None = None) -> tuple[str, int]:
        # The key is the digest, so the bytes wait here until it is known; large ones on disk.
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            digest, size = await written(chunks, spool, expected)
            spool.seek(0)
            await self._call(lambda: self._client.upload_fileobj(spool, self._bucket, self._key(digest)))
        return digest, size

    async def put_bytes(self, data: bytes) -> str:
        digest = sha256(data)
        await self._call(lambda: self._client.put_object(Bucket=self._bucket, Key=self._key(digest), Body=data))
        return digest

    async def size(self, digest: str) -> int | None:
        try:
            head: Any = await self._call(lambda: self._client.head_object(Bucket=self._bucket, Key=self._key(digest)))
        except NotFound:
            return None
        return int(head["ContentLength"])

    async def get(self, digest: str, *, most: int = 512 * 1024 * 1024) -> bytes:
        size = await self.size(digest)
        if size is None:
            raise NotFound(f"artefact {digest} is not in the store")
        if size > most:
            raise TooLarge(f"artefact {digest} has {size} bytes; {most} is the most that is read here")
        return b"".join([chunk async for chunk in self.read(digest)])

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        answer: Any = await self._call(lambda: self._client.get_object(Bucket=self._bucket, Key=self._key(digest)))
        hasher, body = hashlib.sha256(), answer["Body"]
        try:
            while chunk := await self._call(lambda: body.read(CHUNK)):
                hasher.update(chunk)
                yield chunk
        finally:
            body.close()
        if "sha256:" + hasher.hexdigest() != digest:
            raise IntegrityFailed(f"artefact {digest} was changed in the store")

    async def remove(self, digest: str) -> None:
        """In a bucket that keeps versions the bytes stay behind a delete marker, until its lifecycle ends them."""
        await self._call(lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(digest)))
