"""A stand-in for the server of W&B: it answers what the pinned client asks, and records what it receives.

It is no copy of the hosted service: it knows only what a client can observe. A request that it does not know, a row of
history that it has already, a missing line, an unknown run, or an artifact without its files is refused and becomes a
fault, which fails the test. ``requests.txt`` lists the requests of the pinned client.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.wandb_server.http import WandbServer
from helpers.wandb_server.state import ENTITY, ServerArtifact, ServerRun, ServerSweep, State

__all__ = ["ENTITY", "KEY", "ServerArtifact", "ServerRun", "ServerSweep", "State", "WandbServer", "serve"]

KEY = "d0d0" + "0123456789abcdef" * 2 + "c0de"


@contextmanager
def serve(folder: Path) -> Iterator[WandbServer]:
    """Start the stand-in, and set W&B's environment for it; nothing is read from, or written to, the home folder.

    Args:
        folder: for W&B's settings, caches and data.

    Raises:
        AssertionError: on exit, if there were faults.
    """
    server = WandbServer(KEY)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / f"wandb-{name.lower()}"))
        patch.setenv("NETRC", str(folder / "netrc"))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_BASE_URL", server.url)
        patch.setenv("WANDB_API_KEY", KEY)
        forget_settings()
        try:
            yield server
        finally:
            server.stop()
    forget_settings()
    if server.state.faults:
        raise AssertionError("W&B's client and the stand-in disagree: " + "; ".join(server.state.faults))


def forget_settings() -> None:
    """Make W&B's client read its environment again: it reads it once per process, and ignores later changes."""
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()
