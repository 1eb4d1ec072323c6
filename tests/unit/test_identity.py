"""Keys, proofs, tokens and Cedar: whoever cannot show who they are is nobody, and every error is a deny."""

from __future__ import annotations

import base64
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from shared.errors import Forbidden, SignatureRefused, Unauthenticated, Unavailable
from shared.events.base import UNVERIFIED
from shared.events.envelope import Envelope
from shared.identity.authorizer import ACTIONS, Authorizer, PolicyRefused
from shared.identity.keys import ApiKey, KeyRing, append, remove
from shared.identity.principal import Principal
from shared.identity.proof import Authors, sign
from shared.identity.tokens import OidcSettings, Tokens

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def new_key(path: Path, principal: str = "user:ada", workspace: str = "default", **more: Any) -> str:
    text, record = ApiKey.generate(principal, ["publisher"], workspace, **more)
    append(path, record)
    return text


def test_a_key_opens_as_its_principal_and_is_not_kept(keys: Path) -> None:
    text = new_key(keys)
    principal = KeyRing(keys).authenticate(text)
    assert (principal.id, principal.workspace, principal.roles) == ("user:ada", "default", {"publisher"})
    assert text.rpartition("_")[2] not in keys.read_text()
    assert keys.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", ["last character", "other id", "empty", "id alone", "garbage"])
def test_a_wrong_key_opens_nothing(keys: Path, change: str) -> None:
    text = new_key(keys)
    wrong = {
        "last character": text[:-1] + ("0" if text[-1] != "0" else "1"),
        "other id": "mmk_aaaaaaaaaaaa_" + text.rpartition("_")[2],
        "empty": "",
        "id alone": text.rpartition("_")[0],
        "garbage": "mmk_\x00ü_",
    }[change]
    with pytest.raises(Unauthenticated):
        KeyRing(keys).authenticate(wrong)


def test_an_expired_key_opens_nothing(keys: Path) -> None:
    text = new_key(keys, expires_at=NOW + timedelta(days=1))
    assert KeyRing(keys, lambda: NOW).authenticate(text)
    with pytest.raises(Unauthenticated):
        KeyRing(keys, lambda: NOW + timedelta(days=2)).authenticate(text)


def test_keys_made_and_revoked_at_once_are_all_kept_or_gone(keys: Path) -> None:
    new_key(keys)
    (first,) = json.loads(keys.read_text())
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(new_key, keys) for _ in range(20)]
        gone = pool.submit(remove, keys, first["id"])
    assert gone.result() and not remove(keys, first["id"])
    assert {one["id"] for one in json.loads(keys.read_text())} == {one.result().rpartition("_")[0] for one in made}
    assert keys.stat().st_mode & 0o077 == 0


def test_a_ring_that_cannot_be_read_lets_nobody_in(keys: Path) -> None:
    text = new_key(keys)
    keys.write_text("[{")
    with pytest.raises(Unavailable):
        KeyRing(keys).authenticate(text)
    with pytest.raises(Unauthenticated):
        KeyRing(None).authenticate(text)


def envelope(data: Any = None, **more: Any) -> Envelope:
    found = {"id": "1", "source": "pipe", "type": "asset.submitted.v1", "subject": "s", **more}
    return Envelope(data=orjson.dumps({"a": 1.5} if data is None else data), **found)


def proven(text: str, made_for: Envelope) -> str:
    return sign(text, made_for.id, made_for.source, made_for.type, made_for.workspace, orjson.loads(made_for.data))


def test_a_proof_names_the_author(keys: Path) -> None:
    text = new_key(keys)
    event = envelope()
    author = Authors(KeyRing(keys), Authorizer())(replace(event, proof=proven(text, event)))
    assert (author.id, author.proven) == ("user:ada", True)


def test_a_proof_survives_another_spelling_of_the_same_data(keys: Path) -> None:
    text = new_key(keys)
    event = envelope({"b": 1, "a": [1.0, "ü"]})
    respelled = replace(event, data=b' {"a":[1,"\\u00fc"], "b":1.0}', proof=proven(text, event))
    assert Authors(KeyRing(keys), Authorizer())(respelled).proven


def test_without_a_proof_the_author_is_unverified(keys: Path) -> None:
    assert Authors(KeyRing(keys), Authorizer())(envelope()) == UNVERIFIED


@pytest.mark.parametrize(
    "other",
    [
        {"id": "2"},
        {"source": "elsewhere"},
        {"type": "deploy.requested.v1"},
        {"data": b'{"a": 2}'},
        {"data": b"{"},
        {"data": b'{"a": 1e300, "b": 12345678901234567890}'},
    ],
    ids=str,
)
def test_a_proof_fits_one_event_only(keys: Path, other: dict[str, Any]) -> None:
    text = new_key(keys)
    event = envelope()
    with pytest.raises(SignatureRefused):
        Authors(KeyRing(keys), Authorizer())(replace(event, proof=proven(text, event), **other))


def test_a_proof_with_anothers_key_id_is_refused(keys: Path) -> None:
    ada, mal = new_key(keys, "user:ada"), new_key(keys, "user:mal")
    event = envelope()
    claimed = ada.rpartition("_")[0] + "_" + mal.rpartition("_")[2]  # Ada's id over Mal's secret
    with pytest.raises(SignatureRefused):
        Authors(KeyRing(keys), Authorizer())(replace(event, proof=proven(claimed, event)))


def test_a_proof_of_another_workspace_is_refused(keys: Path) -> None:
    text = new_key(keys, workspace="other")
    event = envelope()
    with pytest.raises(SignatureRefused, match="workspace other"):
        Authors(KeyRing(keys), Authorizer())(replace(event, proof=proven(text, event)))


def test_a_proven_author_may_do_no_more_than_over_http(keys: Path) -> None:
    text = new_key(keys)  # a publisher
    event = envelope(type="deploy.requested.v1")
    with pytest.raises(Forbidden):
        Authors(KeyRing(keys), Authorizer())(replace(event, proof=proven(text, event)), "deploy")


@pytest.mark.parametrize("proof", ["", "x", "a.b.c", "..", "eyJhbGciOiJub25lIiwia2lkIjoieCJ9.e30."])
def test_what_is_no_proof_is_refused(keys: Path, proof: str) -> None:
    new_key(keys)
    with pytest.raises(SignatureRefused):
        Authors(KeyRing(keys), Authorizer())(replace(envelope(), proof=proof))


RSA = RSAKey.generate_key(2048, {"kid": "one"}, private=True)
CLAIMS = {"iss": "https://id.example", "aud": "mintmark", "sub": "ada", "roles": ["viewer"], "workspace": "default"}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [RSA.as_dict(private=False)]}))
    return Tokens(OidcSettings(issuer="https://id.example", jwks_file=path))


def token(
    header: dict[str, Any] | None = None, key: Any = RSA, algorithms: list[str] | None = None, **claims: Any
) -> str:
    found = {**CLAIMS, "exp": int(datetime.now(UTC).timestamp()) + 300, **claims}
    found = {name: value for name, value in found.items() if value is not None}
    return jwt.encode(header or {"alg": "RS256", "kid": "one"}, found, key)


async def test_a_token_of_the_issuer_is_a_principal(tokens: Tokens) -> None:
    principal = await tokens.authenticate(token())
    assert (principal.id, principal.roles) == ("user:ada", {"viewer"})


def unsigned() -> str:
    body = token().split(".")[1]
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"one"}').decode().rstrip("=")
    return f"{none}.{body}."


def hmac_with_the_public_key() -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').decode().rstrip("=")
    body = token().split(".")[1]
    mac = hmac.digest(RSA.as_pem(private=False), f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


ATTACKS = {
    "unsigned": unsigned,
    "public key as HMAC secret": hmac_with_the_public_key,
    "key in the header": lambda: token(
        {"alg": "ES256", "kid": "one", "jwk": (mine := ECKey.generate_key("P-256")).as_dict(private=False)}, mine
    ),
    "another key": lambda: token(key=RSAKey.generate_key(2048, {"kid": "one"}, private=True)),
    "unknown kid": lambda: token({"alg": "RS256", "kid": "two"}),
    "expired": lambda: token(exp=1),
    "no expiry": lambda: token(exp=None),
    "other audience": lambda: token(aud="another"),
    "other issuer": lambda: token(iss="https://evil.example"),
    "no subject": lambda: token(sub=None),
    "roles as text": lambda: token(roles="owner"),
    "signature cut": lambda: token()[:-5],
    "garbage": lambda: "a.b.c",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_on_tokens_are_refused(tokens: Tokens, attack: str) -> None:
    with pytest.raises(Unauthenticated):
        await tokens.authenticate(ATTACKS[attack]())


async def test_without_an_issuer_no_token_counts() -> None:
    with pytest.raises(Unauthenticated):
        await Tokens(OidcSettings()).authenticate(token())


def principal(*roles: str, workspace: str = "default") -> Principal:
    return Principal("user:ada", workspace, frozenset(roles))


def test_nobody_reaches_into_another_workspace() -> None:
    authorizer = Authorizer()
    for action in ACTIONS:
        authorizer.require(principal("owner"), action, "asset")  # type: ignore[arg-type]
        with pytest.raises(Forbidden):
            authorizer.require(principal("owner"), action, "asset", "other")  # type: ignore[arg-type]


def test_without_a_role_nothing_is_allowed() -> None:
    for action in ACTIONS:
        with pytest.raises(Forbidden):
            Authorizer().require(principal(), action, "asset")  # type: ignore[arg-type]


def test_names_are_never_policy_text() -> None:
    mal = Principal('x" || true', 'default"', frozenset({'owner", Role::"x'}))
    with pytest.raises(Forbidden):
        Authorizer().require(mal, "approve", 'asset"')


@pytest.mark.parametrize(
    "policy",
    [
        "permit (principal, action, resource) when { principal.nothing };",
        'permit (principal, action == Action::"fly", resource);',
        "permit (",
    ],
)
def test_policies_that_do_not_fit_the_schema_are_not_taken(tmp_path: Path, policy: str) -> None:
    (tmp_path / "bad.cedar").write_text(policy)
    with pytest.raises(PolicyRefused):
        Authorizer(tmp_path)
