"""The routes: which address leads to which call, on the hosts that share one port here."""

from __future__ import annotations

from aiohttp import web

from orchestrator.local.stream.api_account import AccountCalls, DownloadCalls, TokenCalls, WebhookCalls
from orchestrator.local.stream.api_videos import VideoCalls
from orchestrator.local.stream.control import Control
from orchestrator.local.stream.delivery import FileDelivery
from orchestrator.local.stream.doors import ACCOUNT, Doors
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.showing import Showing
from orchestrator.local.stream.tokens import TokenSigner
from orchestrator.local.stream.uploads_form import FormUploads
from orchestrator.local.stream.uploads_tus import TusUploads
from orchestrator.local.stream.viewing import Viewing

_STREAM = f"{ACCOUNT}/stream"
_VIDEO = f"{_STREAM}/{{uid}}"
# A uid has 32 characters, a token more; shorter first parts are other addresses.
_ASSET = "/{asset:[^/]{32,}}"


def build_application(parts: Parts, signer: TokenSigner) -> web.Application:
    """The whole stand-in as one aiohttp application."""
    forms, tus, viewing = FormUploads(parts), TusUploads(parts), Viewing(parts, signer)
    doors = Doors(parts)
    app = web.Application(middlewares=[doors.middleware])
    app.on_response_prepare.append(doors.add_cors)
    # Fixed words come before {uid}: the first route that fits is taken.
    app.add_routes(_account(parts, forms))
    app.add_routes(_videos(VideoCalls(parts, forms, tus), DownloadCalls(parts), TokenCalls(parts, signer)))
    app.add_routes(_uploads(forms, tus))
    app.add_routes(_delivery(FileDelivery(parts, viewing), Showing(parts, viewing)))
    app.add_routes(Control(parts).routes())
    return app


def _account(parts: Parts, forms: FormUploads) -> list[web.RouteDef]:
    account, webhook = AccountCalls(parts), WebhookCalls(parts)
    return [
        web.get("/client/v4/user/tokens/verify", account.verify_token),
        web.get(f"{ACCOUNT}/tokens/verify", account.verify_token),
        web.get(f"{_STREAM}/storage-usage", account.storage_usage),
        web.get(f"{_STREAM}/webhook", webhook.get),
        web.put(f"{_STREAM}/webhook", webhook.put),
        web.delete(f"{_STREAM}/webhook", webhook.delete),
        web.post(f"{_STREAM}/direct_upload", forms.direct),
    ]


def _videos(videos: VideoCalls, downloads: DownloadCalls, tokens: TokenCalls) -> list[web.RouteDef]:
    return [
        web.post(_STREAM, videos.upload),
        web.get(_STREAM, videos.list_videos),
        web.post(f"{_STREAM}/copy", videos.copy),
        web.post(f"{_STREAM}/clip", videos.clip),
        web.get(_VIDEO, videos.get),
        web.post(_VIDEO, videos.edit),
        web.delete(_VIDEO, videos.delete),
        web.get(f"{_VIDEO}/embed", videos.embed),
        web.post(f"{_VIDEO}/token", tokens.issue),
        web.get(f"{_VIDEO}/downloads", downloads.get),
        web.post(f"{_VIDEO}/downloads", downloads.enable),
        web.delete(f"{_VIDEO}/downloads", downloads.remove),
        web.post(f"{_VIDEO}/downloads/{{kind}}", downloads.enable),
        web.delete(f"{_VIDEO}/downloads/{{kind}}", downloads.remove),
    ]


def _uploads(forms: FormUploads, tus: TusUploads) -> list[web.RouteDef]:
    return [
        web.post("/upload/{uid}", forms.receive_direct),
        web.head("/tus/{uid}", tus.head),
        web.patch("/tus/{uid}", tus.patch),
        # A tus upload made without direct_user goes on with the API token.
        web.head(f"{ACCOUNT}/media/{{uid}}", tus.head),
        web.patch(f"{ACCOUNT}/media/{{uid}}", tus.patch),
    ]


def _delivery(files: FileDelivery, showing: Showing) -> list[web.RouteDef]:
    return [
        web.get(f"{_ASSET}/downloads/{{file}}", files.serve),
        web.get(f"{_ASSET}/manifest/{{file}}", showing.manifest),
        web.get(f"{_ASSET}/thumbnails/thumbnail.jpg", showing.thumbnail),
        web.get(f"{_ASSET}/rendition.mp4", showing.rendition),
        web.get(f"{_ASSET}/iframe", showing.player),
        web.get(f"{_ASSET}/watch", showing.player),
    ]
