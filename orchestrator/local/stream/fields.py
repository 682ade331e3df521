"""What a caller may say about a video: JSON bodies and tus metadata, checked and turned into record fields."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from orchestrator.local.stream.envelope import bad_request

M = TypeVar("M", bound=BaseModel)

# Cloudflare's bounds.
_DURATION = Field(default=None, ge=1, le=36_000, alias="maxDurationSeconds")
_DELETION_FROM, _DELETION_TO = timedelta(days=30), timedelta(days=1096)
_EXPIRY_TO = timedelta(hours=6)
EXPIRY_DEFAULT = timedelta(minutes=30)

_TUS_KEYS = {
    "name": "name",
    "requiresignedurls": "requireSignedURLs",
    "allowedorigins": "allowedOrigins",
    "thumbnailtimestamppct": "thumbnailTimestampPct",
    "scheduleddeletion": "scheduledDeletion",
    "maxdurationseconds": "maxDurationSeconds",
    "expiry": "expiry",
}


class Described(BaseModel):
    """What every way of making or editing a video accepts; field names are those of the record."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    meta: dict[str, Any] | None = None
    creator: Annotated[str, Field(max_length=64)] | None = None
    require_signed_urls: bool | None = Field(default=None, alias="requireSignedURLs")
    allowed_origins: list[str] | None = Field(default=None, alias="allowedOrigins")
    thumbnail_share: float | None = Field(default=None, ge=0, le=1, alias="thumbnailTimestampPct")
    scheduled_deletion_at: AwareDatetime | None = Field(default=None, alias="scheduledDeletion")
    max_duration_seconds: int | None = _DURATION

    def record_fields(self) -> dict[str, Any]:
        """The fields that were given, as the record keeps them; null empties a field."""
        given: dict[str, Any] = {}
        for name in self.model_fields_set & _RECORD_FIELDS:
            value = getattr(self, name)
            given[name] = _EMPTY[name] if value is None and name in _EMPTY else value
        if (deletion := given.get("scheduled_deletion_at")) is not None:
            _check_deletion(deletion)
        return given


class DirectUpload(Described):
    """Body of POST /stream/direct_upload."""

    max_duration_seconds: int = Field(ge=1, le=36_000, alias="maxDurationSeconds")
    expiry: AwareDatetime | None = None


class TusUpload(Described):
    """Upload-Metadata of a tus creation."""

    expiry: AwareDatetime | None = None


class CopyRequest(Described):
    """Body of POST /stream/copy; `url` is the older name of `input`, `name` an older way to fill meta."""

    input: str | None = None
    url: str | None = None
    name: str | None = None


class ClipRequest(Described):
    """Body of POST /stream/clip; the API takes whole seconds only."""

    clipped_from: str = Field(alias="clippedFromVideoUID")
    start_seconds: int = Field(alias="startTimeSeconds", ge=0, strict=True)
    end_seconds: int = Field(alias="endTimeSeconds", ge=1, strict=True)
    name: str | None = None


class EditRequest(Described):
    """Body of POST /stream/{uid}."""

    upload_expires_at: AwareDatetime | None = Field(default=None, alias="uploadExpiry")
    public_details: dict[str, Any] | None = Field(default=None, alias="publicDetails")
    uid: str | None = None


_RECORD_FIELDS = {*Described.model_fields, "upload_expires_at", "public_details"}
_EMPTY: dict[str, Any] = {"meta": {}, "require_signed_urls": False, "allowed_origins": [], "thumbnail_share": 0.0}


def parsed(model: type[M], body: dict[str, Any]) -> M:
    """*body* as *model*. Raises ApiProblem (400) that names every wrong field."""
    try:
        return model.model_validate(body)
    except ValidationError as exc:
        problems = [f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors()]
        raise bad_request("; ".join(problems)) from exc


def expiry_at(wanted: datetime | None) -> datetime:
    """When an upload address stops working. Raises ApiProblem when *wanted* is past or too far off."""
    now = datetime.now(UTC)
    if wanted is None:
        return now + EXPIRY_DEFAULT
    if not now < wanted <= now + _EXPIRY_TO:
        raise bad_request("expiry: must be in the future, at most 6 hours from now")
    return wanted


def tus_metadata(header: str) -> dict[str, Any]:
    """Upload-Metadata as the body that the JSON calls take; unknown keys go to meta.

    "name Y2xpcA==,requiresignedurls" becomes {"meta": {"name": "clip"}, "requireSignedURLs": true}.
    Raises ApiProblem for values that are not base64.
    """
    body: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, encoded = pair.partition(" ")
        value = _decoded(key, encoded)
        name = _TUS_KEYS.get(key.lower())
        if name is None or name == "name":
            meta[key] = value
        elif name == "requireSignedURLs":
            body[name] = True
        else:
            body[name] = value.split(",") if name == "allowedOrigins" else value
    return {**body, "meta": meta}


def _decoded(key: str, encoded: str) -> str:
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise bad_request(f"Upload-Metadata: the value of {key} is not base64") from exc


def _check_deletion(at: datetime) -> None:
    now = datetime.now(UTC)
    if not now + _DELETION_FROM <= at <= now + _DELETION_TO:
        raise bad_request("scheduledDeletion: must be 30 to 1096 days from now")
