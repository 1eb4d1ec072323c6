"""A master key in a KMS; apart from `sealing`, because botocore is large and most installations have a key file."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from services.router.errors import SealBroken
from services.router.gateway.sealing import Belonging, MasterKey


class KmsMasterKey(MasterKey):
    """A master key that never leaves its KMS. `client` is boto3's of "kms"; KMS rotates what is behind an ARN."""

    def __init__(self, client: Any, key: str) -> None:
        """`key` is an ARN or an alias that data keys are wrapped by from now on."""
        self._client = client
        self._key = key
        self._arn: str | None = None

    def wrap(self, data_key: bytes, of: Belonging) -> tuple[str, bytes]:
        try:
            answer = self._client.encrypt(KeyId=self._key, Plaintext=data_key, EncryptionContext=of.context())
        except (BotoCoreError, ClientError) as error:
            raise SealBroken(f"The KMS did not wrap a key: {_reason(error)}.") from None
        self._arn = str(answer["KeyId"])
        return self._arn, bytes(answer["CiphertextBlob"])

    def unwrap(self, master: str, wrapped: bytes, of: Belonging) -> bytes:
        try:
            answer = self._client.decrypt(KeyId=master, CiphertextBlob=wrapped, EncryptionContext=of.context())
        except (BotoCoreError, ClientError) as error:
            raise SealBroken(f"The KMS did not open a key: {_reason(error)}.") from None
        return bytes(answer["Plaintext"])

    def is_current(self, master: str) -> bool:
        if self._arn is None:
            try:
                self._arn = str(self._client.describe_key(KeyId=self._key)["KeyMetadata"]["Arn"])
            except (BotoCoreError, ClientError) as error:
                raise SealBroken(f"The KMS does not know its key: {_reason(error)}.") from None
        return master == self._arn


def _reason(error: Exception) -> str:
    """The error's code: its message may hold what was sent."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__
