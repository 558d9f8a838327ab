"""The settings of every role: one name everywhere, and defaults that parse as themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from p2pmarket.options import resolve, written
from p2pmarket.settings import BrokerSettings, MarketAccess, NetworkSettings, NodeSettings, PeerSettings

ROLES = (PeerSettings, MarketAccess, NodeSettings, BrokerSettings)


@pytest.mark.parametrize("kind", ROLES)
def test_what_is_shown_can_be_set(kind: type[PeerSettings]) -> None:
    shown = {field.name: written(field, getattr(kind(), field.name)) for field in dataclasses.fields(kind)}
    variables = {f"P2PMARKET_{name.upper()}": text for name, text in shown.items() if text}
    settings, origins = resolve(kind, {}, variables)
    assert settings == kind()
    assert {name for name, origin in origins.items() if origin != "default"} == {n for n, text in shown.items() if text}


@pytest.mark.parametrize("kind", ROLES)
def test_every_setting_says_what_it_is(kind: type[PeerSettings]) -> None:
    for field in dataclasses.fields(kind):
        assert field.metadata["help"], field.name


def test_each_role_has_a_folder_of_its_own() -> None:
    folders = [kind().folder for kind in (PeerSettings, NodeSettings, BrokerSettings)]
    assert len(set(folders)) == 3
    assert all(folder.is_absolute() for folder in folders)


def test_the_identity_is_in_the_folder_unless_named(tmp_path: Path) -> None:
    assert PeerSettings(state=tmp_path).identity_file == tmp_path / "identity.key"
    assert PeerSettings(state=tmp_path, identity_path=Path("~/mine")).identity_file == Path("~/mine").expanduser()


def test_the_network_gets_its_part(tmp_path: Path) -> None:
    settings = NodeSettings(state=tmp_path, initial_peers=("/ip4/1.2.3.4/tcp/5/p2p/x",), client_mode=True)
    network = settings.network()
    assert isinstance(network, NetworkSettings)
    assert network.initial_peers == settings.initial_peers
    assert network.client_mode
    assert network.identity_path == tmp_path / "identity.key"
