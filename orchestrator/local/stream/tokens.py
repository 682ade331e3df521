"""Signed tokens that stand in place of a uid in delivery addresses.

Cloudflare signs with RS256; here it is HS256 with a secret of the stand-in's own, because nobody else
verifies these tokens and the standard library can do it. Claims are the same: sub, kid, exp, nbf,
downloadable, accessRules.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import secrets
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.local.stream.fields import parsed
from orchestrator.local.stream.files import write_private

_DAY_SECONDS = 86_400
_HOUR_SECONDS = 3_600
_HEADER = {"alg": "HS256", "kid": "stand-in"}


class TokenRefused(Exception):
    """The token is not one of ours, is out of time, or does not allow this."""


class AccessRule(BaseModel):
    """One rule; the first that fits decides. Countries are unknown here and never fit."""

    type: Literal["any", "ip.src", "ip.geoip.country"]
    action: Literal["allow", "block"]
    ip: list[str] = []
    country: list[str] = []

    def fits(self, address: str) -> bool:
        if self.type != "ip.src":
            return self.type == "any"
        return any(ipaddress.ip_address(address) in ipaddress.ip_network(net, strict=False) for net in self.ip)


class Grant(BaseModel):
    """What a token says."""

    model_config = ConfigDict(extra="ignore")

    sub: str
    exp: int
    nbf: int
    downloadable: bool = False
    access_rules: list[AccessRule] = Field(default=[], alias="accessRules")


class TokenSigner:
    """Issues and checks tokens with one secret, kept between runs."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            write_private(path, secrets.token_hex(32))
        self._secret = path.read_text().encode()

    def issue(self, grant: Grant) -> str:
        """The token for *grant*."""
        claims = {**grant.model_dump(by_alias=True, exclude_defaults=True), "kid": _HEADER["kid"]}
        signed = f"{_encoded(_HEADER)}.{_encoded(claims)}"
        return f"{signed}.{self._signature(signed)}"

    def check(self, token: str, now: float, address: str) -> Grant:
        """What *token* grants to *address* at *now* (unix seconds). Raises TokenRefused."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(signed).encode()):
            raise TokenRefused("The token is not valid.")
        try:
            grant = Grant.model_validate_json(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
        except (binascii.Error, ValueError) as exc:
            raise TokenRefused("The token is not valid.") from exc
        if not grant.nbf <= now < grant.exp:
            raise TokenRefused("The token is out of its time.")
        rule = next((rule for rule in grant.access_rules if rule.fits(address)), None)
        if rule is not None and rule.action == "block":
            raise TokenRefused("The token does not allow this address.")
        return grant

    def _signature(self, signed: str) -> str:
        digest = hmac.new(self._secret, signed.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class TokenRequest(BaseModel):
    """Body of POST token; all optional."""

    exp: int | None = None
    nbf: int | None = None
    downloadable: bool = False
    access_rules: list[AccessRule] = Field(default=[], alias="accessRules")


def grant_from(uid: str, body: dict[str, Any], now: float) -> Grant:
    """The grant a token request asks for: an hour unless it says otherwise. Raises ApiProblem."""
    wanted = parsed(TokenRequest, body)
    exp = int(now) + _HOUR_SECONDS if wanted.exp is None else min(wanted.exp, int(now) + _DAY_SECONDS)
    nbf = int(now) - _HOUR_SECONDS if wanted.nbf is None else wanted.nbf
    return Grant(sub=uid, exp=exp, nbf=nbf, downloadable=wanted.downloadable, accessRules=wanted.access_rules)


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).rstrip(b"=").decode()
