"""What `doctor` says of the brokers that an agent met."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pmarket.cli.doctor import _brokers
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import MarketError
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.settings import MarketAccess


def test_a_distrusted_broker_is_named_with_the_reason(tmp_path: Path) -> None:
    access = MarketAccess(state=tmp_path)
    assert "no agent" in _brokers(access)
    peer = Identity.load_or_create(access.identity_file).peer_id
    with AgentJournal.open(access.folder / "journal.sqlite", peer) as journal:
        assert _brokers(access) == "none is distrusted"
        journal.accuse("12D3KooBroker", "it signed two histories of its ledger", b"signed")
    with pytest.raises(MarketError, match=r"it signed two histories.* the broker 12D3KooBroker"):
        _brokers(access)
    with AgentJournal.open(access.folder / "journal.sqlite", peer) as journal:
        journal.trust_again("12D3KooBroker")
    assert _brokers(access) == "none is distrusted"
