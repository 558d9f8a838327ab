"""Whatever is changed in a ledger's file, the audit finds it and names it; and it is silent about honest ledgers.

Each kind of tampering is tried at random places of random ledgers: a few here, a hundred of each with `-m slow`. The
audit with one check switched off is the control: it misses what that check is for.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from audit_examples import SignedBench, honest, rebuild
from ledger_examples import MARKET
from tampering_kinds import (
    TAMPERINGS,
    Base,
    Case,
    Tampering,
    another_history,
    edit_a_hold,
    edit_a_leaf,
    edit_a_leaf_without_a_trigger,
    edit_a_node,
    make_base,
    raise_a_balance,
    restore_an_older_copy,
    rewrite_history,
    set_a_state_back,
)

from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import JournalDamaged, MalformedMessage, SettingsError
from p2pmarket.ledger import audit
from p2pmarket.ledger.audit import audit_file, salvage_file
from p2pmarket.ledger.audit_tables import TABLE_CHECKS
from p2pmarket.ledger.audit_words import FILE_CHECKS, WORD_CHECKS
from p2pmarket.ledger.fold import LEAVES, Fold, read_leaf
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.leaves import Granted, pack, unpack
from p2pmarket.ledger.schema import VERSION
from p2pmarket.ledger.trade import STATES
from p2pmarket.messages import Checkpoint, Done

BASES = 24
FEW, ALL = 5, 100
HONEST_FEW, HONEST_ALL = 60, 1000


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    folder = tmp_path_factory.mktemp("bases")
    return [make_base(folder / f"{seed}.sqlite", seed) for seed in range(BASES)]


def found_by(tampering: Tampering, base: Base, path: Path, seed: int) -> set[str]:
    """The kinds of problems that the audit names after one tampering."""
    case = Case(base, path, seed)
    try:
        shown = tampering(case) or []
    finally:
        case.close()
    return {problem.kind for problem in case.audit(shown).found}


def check(tampering: Tampering, bases: list[Base], path: Path, seeds: range) -> None:
    kind, alone = TAMPERINGS[tampering]
    for seed in seeds:
        found = found_by(tampering, bases[seed % len(bases)], path, seed)
        assert kind in found, f"seed {seed}: {found}"
        assert not alone or found == {kind}, f"seed {seed}: {found}"


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda function: function.__name__)
def test_tampering_is_found_and_named(tampering: Tampering, bases: list[Base], tmp_path: Path) -> None:
    check(tampering, bases, tmp_path / "ledger.sqlite", range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda function: function.__name__)
def test_a_hundred_tamperings_of_each_kind(tampering: Tampering, bases: list[Base], tmp_path: Path) -> None:
    check(tampering, bases, tmp_path / "ledger.sqlite", range(FEW, FEW + ALL))


def test_a_missing_trigger_does_not_hide_what_was_done_without_it(bases: list[Base], tmp_path: Path) -> None:
    for seed in range(FEW):
        found = found_by(edit_a_leaf_without_a_trigger, bases[seed], tmp_path / "ledger.sqlite", seed)
        assert found >= {"schema", "checkpoint"}


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE head", "DROP TABLE leaves", "ALTER TABLE accounts ADD COLUMN more TEXT", "DROP TABLE mail"],
)
def test_where_a_table_is_not_the_ledgers_nothing_more_is_said(
    statement: str, bases: list[Base], tmp_path: Path
) -> None:
    case = Case(bases[0], tmp_path / "ledger.sqlite", 0)
    case.connection.execute(statement)
    case.without = {"leaves_stay", "leaves_rest"} if "leaves" in statement else set()
    case.close()
    report = case.audit([("head", case.base.checkpoint)])
    assert {problem.kind for problem in report.found} == {"schema"}
    assert not report.examined and set(report.figures.values()) == {None}
    assert report.notes == (), "what was not looked at is not said to prove nothing"
    with pytest.raises(JournalDamaged, match="look for a good copy"):
        salvage_file(case.path, None, [])


def test_an_audit_that_went_through_gives_its_figures(bases: list[Base]) -> None:
    report = audit_file(bases[0].bench.path)
    assert report.examined and report.figures["leaves"] == report.leaves > 0
    assert report.figures["root"] == report.root.hex()


# ---- controls ----------------------------------------------------------------------------------------------------

LOG_KINDS = {"leaf", "issue", "end", "settlement", "refund", "overdrawn", "owner"}
OUTSIDE_KINDS = {"cut", "rewritten"}
KINDS = TABLE_CHECKS.keys() | WORD_CHECKS.keys() | FILE_CHECKS.keys() | LOG_KINDS | OUTSIDE_KINDS | {"schema"}
"""Without `two-logs` and `rule`, which only say more of what others find too."""


def switch_off(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Cripples the audit: one of its checks is never made."""
    note, compare = Fold.problem, audit.compare
    if kind in LOG_KINDS:
        monkeypatch.setattr(Fold, "problem", lambda fold, of, words: of == kind or note(fold, of, words))
    elif kind in OUTSIDE_KINDS:
        monkeypatch.setattr(audit, "compare", lambda *of: [found for found in compare(*of) if found.kind != kind])
    elif kind == "schema":
        monkeypatch.setattr(audit, "schema_faults", lambda *of: iter(()))
    else:
        for checks in (TABLE_CHECKS, WORD_CHECKS, FILE_CHECKS):
            monkeypatch.delitem(checks, kind, raising=False)  # type: ignore[arg-type]
    if kind == "node":
        monkeypatch.setattr(audit, "check_nodes", lambda connection, fold: iter(()))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_audit_without_one_check_misses_its_kind(
    monkeypatch: pytest.MonkeyPatch, kind: str, bases: list[Base], tmp_path: Path
) -> None:
    tamperings = [tampering for tampering, named in TAMPERINGS.items() if named == (kind, True)]
    assert tamperings, "every check must be the only one that sees something"
    switch_off(monkeypatch, kind)
    for tampering in tamperings:
        for seed in range(2):
            assert found_by(tampering, bases[seed], tmp_path / "ledger.sqlite", seed) == set()


def test_every_state_is_in_every_base(bases: list[Base]) -> None:
    """The tampering needs something to tamper with."""
    for base in bases:
        connection = sqlite3.connect(base.bench.path)
        states = {state for (state,) in connection.execute("SELECT state FROM trades")}
        connection.close()
        assert states == set(STATES) - {"priced"}


def test_the_broker_itself_may_grant(bases: list[Base], tmp_path: Path) -> None:
    """Control: the forged grant with the broker's key is a grant; only what others hold tells a rewritten log."""
    for seed in range(FEW):
        case = Case(bases[seed], tmp_path / "ledger.sqlite", seed)
        grant = Granted(case.bench.third.peer_id, 500, "", bytes(16), 1)
        rebuild(case.connection, case.bench, [*case.leaves(), pack(grant)])
        case.close()
        shown = [(str(size), data) for size, data in case.base.receipts]
        assert case.audit([*shown, ("head", case.base.checkpoint)]).found == ()
        for tampering in (rewrite_history, another_history, restore_an_older_copy):
            case = Case(bases[seed], tmp_path / "ledger.sqlite", seed)
            tampering(case)
            case.close()
            assert case.audit([]).found == ()


# ---- honest ledgers ----------------------------------------------------------------------------------------------


def check_honest(folder: Path, seeds: range) -> None:
    for seed in seeds:
        bench = honest(folder / f"{seed}.sqlite", seed)
        report = audit_file(bench.path, bench.broker.peer_id)
        assert report.found == (), f"seed {seed}"
        Ledger.open(bench.path, bench.broker, MARKET, bench.clock).close()
        bench.path.unlink()


def test_honest_ledgers_raise_no_alarm(bases: list[Base], tmp_path: Path) -> None:
    check_honest(tmp_path, range(HONEST_FEW))
    for base in bases:
        shown = [(str(size), data) for size, data in base.receipts]
        report = audit_file(base.bench.path, base.bench.broker.peer_id, [*shown, ("head", base.checkpoint)])
        assert (report.found, report.notes) == ((), ())
        assert report.root == verify(base.checkpoint, Checkpoint, signer=None).root


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_honest_ledgers_raise_no_alarm(tmp_path: Path) -> None:
    check_honest(tmp_path, range(HONEST_FEW, HONEST_FEW + HONEST_ALL))


# ---- files that are no ledgers, and what proves nothing -----------------------------------------------------------


@pytest.mark.parametrize("tampering", [raise_a_balance, edit_a_hold, edit_a_leaf, edit_a_node, set_a_state_back])
def test_a_broker_does_not_start_on_it(tampering: Tampering, bases: list[Base], tmp_path: Path) -> None:
    case = Case(bases[0], tmp_path / "ledger.sqlite", 1)
    tampering(case)
    case.close()
    with pytest.raises(JournalDamaged, match="does not verify"):
        Ledger.open(case.path, case.bench.broker, MARKET, case.bench.clock)


def test_the_audit_changes_nothing_and_needs_no_writing(bases: list[Base], tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    shutil.copy(bases[0].bench.path, path)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        before = path.read_bytes()
        assert audit_file(path).ok
        assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["ledger.sqlite"]
    finally:
        tmp_path.chmod(0o700)


def test_the_audit_does_not_wait_for_a_broker_that_reads(bases: list[Base], tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    shutil.copy(bases[0].bench.path, path)
    bench = bases[0].bench
    with Ledger.open(path, bench.broker, MARKET, bench.clock) as ledger:
        assert audit_file(path).ok
        ledger.grant(bench.third.peer_id, 5, "", bytes(16))
        assert audit_file(path).ok


def test_damaged_files_are_a_sentence(bases: list[Base], tmp_path: Path) -> None:
    """A bit anywhere in the file: it cannot be read, or something is found, or the bit says nothing (unused space)."""
    path, chance, quiet = tmp_path / "ledger.sqlite", random.Random(5), 0
    good = bases[0].bench.path.read_bytes()
    for _ in range(60):
        bent = bytearray(good)
        for _ in range(chance.choice([1, 40])):
            bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
        path.write_bytes(bent)
        try:
            quiet += audit_file(path).ok
        except (JournalDamaged, SettingsError):
            continue
    assert quiet < 40


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + bytes(4080)])
def test_what_is_no_ledger_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match="ledger.sqlite"):
        audit_file(path)
    assert path.read_bytes() == content
    with pytest.raises(SettingsError, match="no file"):
        audit_file(tmp_path / "none")


def test_a_file_cut_short_is_a_sentence(bases: list[Base], tmp_path: Path) -> None:
    path, good = tmp_path / "ledger.sqlite", bases[0].bench.path.read_bytes()
    for pages in (1, 3, len(good) // 4096 - 1):
        path.write_bytes(good[: pages * 4096])
        with pytest.raises(JournalDamaged):
            audit_file(path)


def test_a_write_that_a_kill_cut_off_is_told(bases: list[Base], tmp_path: Path) -> None:
    """The rollback journal beside the file is hot: only who may write can undo what it holds."""
    path, bench = tmp_path / "ledger.sqlite", bases[0].bench
    shutil.copy(bench.path, path)
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA cache_size = 1", "PRAGMA cache_spill = 1", "BEGIN IMMEDIATE"):
        connection.execute(statement)
    connection.execute("CREATE TABLE much (data BLOB)")
    for _ in range(100):
        connection.execute("INSERT INTO much VALUES (randomblob(3000))")
    killed = tmp_path / "killed.sqlite"
    shutil.copy(path, killed)
    shutil.copy(f"{path}-journal", f"{killed}-journal")
    connection.close()
    with pytest.raises(JournalDamaged, match="start its broker once"):
        audit_file(killed)
    Ledger.open(killed, bench.broker, MARKET, bench.clock).close()
    assert audit_file(killed).ok


@pytest.mark.parametrize("version, words", [(VERSION + 1, "upgrade p2pmarket to open it"), (0, f"version {VERSION}$")])
def test_a_ledger_of_another_version_is_told(version: int, words: str, bases: list[Base], tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    shutil.copy(bases[0].bench.path, path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    for look in (lambda: audit_file(path), lambda: salvage_file(path, None, [])):
        with pytest.raises(JournalDamaged, match=f"is a ledger of version {version} .*{words}"):
            look()


def test_one_leaf_is_not_leaves(tmp_path: Path) -> None:
    bench = SignedBench(tmp_path / "ledger.sqlite")
    bench.ledger.open_account(bench.buyer.peer_id, 5)
    bench.ledger.close()
    words = Checkpoint(MARKET, bench.broker.peer_id, 1, bytes(32), 1)
    (problem,) = audit_file(bench.path, None, [("held", sign(bench.broker, words))]).problems
    assert "a log of 1 leaf (held) that this one does not continue" in problem


def test_what_strangers_show_proves_nothing(bases: list[Base]) -> None:
    """Rubbish, another broker's words and another market's cannot make a ledger look wrong."""
    broker, other = bases[0].bench.broker, bases[1]
    foreign = sign(broker, Checkpoint("another market", broker.peer_id, 3, bytes(32), 1))
    bent = bytearray(bases[0].receipts[0][1])
    bent[-1] ^= 1
    shown = [("rubbish", b"?"), ("empty", b""), ("theirs", other.receipts[0][1]), ("foreign", foreign),
             ("bent", bytes(bent)), ("done", sign(broker, Done()))]  # fmt: skip
    report = audit_file(bases[0].bench.path, broker.peer_id, shown)
    assert report.ok
    assert [note.split()[0] for note in report.notes] == [name for name, _ in shown]


def test_another_broker_than_the_auditor_expects(bases: list[Base]) -> None:
    report = audit_file(bases[0].bench.path, bases[1].bench.broker.peer_id)
    assert {"owner", "checkpoint", "receipt"} <= {problem.kind for problem in report.found}


def test_leaves_are_read_as_they_are_written() -> None:
    """The auditor's reader of leaves and the ledger's agree on every kind, and on what is none."""
    from p2pmarket.ledger.leaves import Leaf as Written

    kinds = {
        kind.KIND.encode(): [field.name for field in dataclasses.fields(kind)] for kind in Written.__subclasses__()
    }
    assert kinds == {kind: list(fields) for kind, fields in LEAVES.items()}
    leaf = Granted("p" * 52, 5, "why", b"m" * 16, 7)
    assert read_leaf(pack(leaf)) == ("granted", dataclasses.asdict(leaf))
    chance, same = random.Random(1), 0
    for _ in range(3000):
        bent = bytearray(pack(leaf))
        bent[chance.randrange(len(bent))] = chance.randrange(256)
        try:
            expected = dataclasses.asdict(unpack(bytes(bent)))
        except MalformedMessage:
            assert read_leaf(bytes(bent)) is None
            continue
        read = read_leaf(bytes(bent))
        assert read is not None and read[1] == expected
        same += 1
    assert same > 100
