"""Shared by the tests of flows and commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.shell import Shell
from tests.prefect_server import standing_server


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


@pytest.fixture
def served(tmp_path: Path, server_url: str) -> Shell:
    """The same, on a server that stands."""
    return Shell(tmp_path / "data", server_url)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that stands already: for tests that are not about the one that a command starts for itself."""
    with standing_server(tmp_path_factory.mktemp("standing")) as environment:
        yield environment["PREFECT_API_URL"]
