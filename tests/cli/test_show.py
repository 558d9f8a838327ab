"""What a person reads and what a program reads are the same events and rows."""

from __future__ import annotations

import json

import pytest

from p2pmarket.cli.show import emitter, print_rows, sentence, short

PEER, ADDRESS = "12D3KooWSomebody", "/ip4/1.2.3.4/tcp/5/p2p/12D3KooWSomebody"
READY = {"event": "ready", "peer_id": PEER, "addresses": [ADDRESS], "market": "digits", "state": "here"}


def test_a_broker_says_how_to_join_it() -> None:
    lines = sentence({**READY, "role": "broker"}).splitlines()
    assert lines[0] == f"broker {PEER} is ready on the market 'digits'"
    assert f"To connect other peers to this one, use --initial_peers {ADDRESS}" in lines
    assert lines[-1].endswith(f"p2pmarket node --market digits --data TRAIN.npz --peers {ADDRESS}")


def test_a_bootstrap_says_how_to_join_it() -> None:
    text = sentence({**READY, "role": "peer", "market": ""})
    assert "market" not in text
    assert text.endswith(f"use --initial_peers {ADDRESS}")


def test_an_agent_says_whom_it_joined() -> None:
    text = sentence({**READY, "role": "node", "broker": "12D3KooWBroker", "balance": 4_200_000})
    assert "broker 12D3KooWBroker; balance 4.20" in text


def test_a_round_is_one_line() -> None:
    event = {"event": "round", "epoch": 3, "loss": 0.5, "score": 80.0, "alone": 70.0, "trade": "bought"}
    assert sentence(event) == "epoch 3, test 80.00, alone 70.00, loss 0.5000, bought"
    assert sentence({"event": "round", "epoch": 3, "loss": 0.5}) == "epoch 3, loss 0.5000"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"event": "status", "agents": 2, "uptime_s": 30}, "agents 2, uptime_s 30"),
        ({"event": "problem", "sentence": "it rains"}, "problem: it rains"),
        ({"event": "saved", "path": "there"}, "wrote there"),
        ({"event": "done", "balance": 1_000_000}, "done; balance 1.00"),
        ({"event": "something new"}, ""),
    ],
)
def test_other_events(event: dict[str, object], text: str) -> None:
    assert sentence(event) == text


def test_programs_read_every_event_as_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit = emitter(as_json=True)
    events = [{"event": "something new"}, {**READY, "role": "broker"}]
    for event in events:
        emit(event)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == events


def test_rows_as_a_table_are_not_folded_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "x" * 100, "gain": 0.5, "ok": True, "bad": False, "none": None}]
    print_rows(rows, as_json=False, title="things", empty="no things")
    out = capsys.readouterr().out
    assert "x" * 100 in out and "0.5000" in out and "yes" in out and "NO" in out
    print_rows(rows, as_json=True, title="things", empty="no things")
    assert json.loads(capsys.readouterr().out) == rows


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], as_json=False, title="things", empty="no things")
    print_rows([], as_json=True, title="things", empty="no things")
    assert capsys.readouterr().out == "no things\n[]\n"


def test_peers_are_told_apart_by_their_ends() -> None:
    assert short(PEER) == "...Somebody"
