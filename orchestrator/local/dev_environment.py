"""What the programs of `orchestrator dev` are told, in the variables that they read in production, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .dev_state import DevState

BUCKET_NAME = "clips"

# Naming one of a group means: not the embedded part. What is missing beside it, the programs report themselves.
DATABASE_VARIABLES = ("DATABASE_URL",)
PROVIDER_VARIABLES = ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_API_URL")
STORE_VARIABLES = ("R2_ACCOUNT_ID", "R2_ENDPOINT_URL", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")


def names_one_of(environment: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    """The first of *variables* that has a value; an empty one counts as unset."""
    return next((variable for variable in variables if environment.get(variable)), None)


def stand_in_environment(state: DevState, url: str) -> dict[str, str]:
    """How to reach the Stream stand-in at *url*, which also hands out the finished files."""
    return {
        "CLOUDFLARE_ACCOUNT_ID": state.account_id,
        "CLOUDFLARE_API_TOKEN": state.api_token,
        "CLOUDFLARE_API_URL": f"{url}/client/v4",
        "CLOUDFLARE_WEBHOOK_SECRET": state.webhook_secret,
        "CLOUDFLARE_DELIVERY_HOSTS": url,
        # The stand-in stays at each state for a second and more, so that a person sees every one of them.
        "LOOK_INTERVAL_SECONDS": "1",
    }


def bucket_environment(state: DevState, endpoint_url: str, public_url: str) -> dict[str, str]:
    """How to reach the embedded bucket."""
    return {
        "R2_ENDPOINT_URL": endpoint_url,
        "R2_ACCESS_KEY_ID": state.access_key_id,
        "R2_SECRET_ACCESS_KEY": state.secret_access_key,
        "R2_BUCKET_NAME": BUCKET_NAME,
        "R2_PUBLIC_URL": public_url,
    }


def page_environment(host: str, port: int) -> dict[str, str]:
    """Where the web process listens."""
    return {"HOST": host, "PORT": str(port)}


def cut_environment(directory: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The directories of the cut pipeline below *directory*; none of ours when one of them is *given*."""
    names = {"UPLOAD_TMP_DIR": "uploads", "PROCESS_WORK_DIR": "work", "OUTPUT_ROOT": "outputs"}
    if any(given.get(name) for name in names):
        return {}
    return {name: str(directory / "cut" / folder) for name, folder in names.items()}


def page_url(host: str, port: int) -> str:
    """The page's address as seen from this machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
