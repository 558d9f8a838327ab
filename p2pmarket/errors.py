"""Every error this package raises on purpose: whose fault it is, a stable code, one sentence.

::

    MarketError                  exit 1
    +-- UserFault                exit 2   what the person running this program gave it
    |   +-- SettingsError            a flag, variable or configuration key
    |   +-- TermsError               a market's terms file
    |   +-- ScenarioError            a simulation's scenario
    |   +-- DataError                a data file
    |   +-- ModelError               a model that cannot be built or does not match the terms
    |   +-- IdentityError            an identity file that cannot be read
    |   +-- StrategyFault            a strategy of the caller's own that fails, or names no amount
    +-- MachineFault             exit 3   this machine
    |   +-- PortInUse                the address to listen on is taken
    |   +-- IdentityInUse            another running peer has the same identity
    |   +-- DiskFull                 a file could not be written
    |   +-- JournalDamaged           the ledger or journal does not verify
    |   +-- DaemonFailed             the libp2p daemon did not start or died
    +-- NetworkFault             exit 4   the way between two peers
    |   +-- BootstrapUnreachable     none of the initial peers answered
    |   +-- MarketNotFound           no broker announces this market
    |   +-- PeerUnreachable          a known peer cannot be reached
    |   +-- ConnectionLost           a stream broke or stalled
    |       +-- BrokerChanged            another broker of the market was joined since
    +-- PeerFault                exit 5   a peer sent something that breaks a rule
    |   +-- MalformedMessage         bytes that are not the record they should be
    |   +-- TooLarge                 a size above a limit
    |   +-- BadSignature             a signature that does not verify
    |   +-- BadSeal                  a sealed parcel that does not open
    |   +-- WrongVersion             another protocol version
    |   +-- Expired                  a statement, bid or parcel past its time
    |   +-- BadSnapshot              parameters with a wrong name, shape, type or value
    |   +-- RuleBroken               a request the trade's state or the ledger does not allow
    +-- Refused                  exit 6   a peer refused our request; its code and sentence

`code` is stable and goes over the wire; the sentence says what happened and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class MarketError(Exception):
    """Base of all errors here. `str(error)` is the sentence a user reads."""

    code: str = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence)
        if code is not None:
            self.code = code


class UserFault(MarketError):
    """Something the person running this program gave it is wrong."""

    code = "bad-input"
    exit_code = 2


class SettingsError(UserFault):
    """A flag, environment variable or configuration key is wrong."""

    code = "bad-settings"


class TermsError(UserFault):
    """A market's terms file is wrong."""

    code = "bad-terms"


class ScenarioError(UserFault):
    """A simulation's scenario is wrong, or does not fit the folder of results it is to go on in."""

    code = "bad-scenario"


class DataError(UserFault):
    """A data file is missing, unreadable, or of the wrong form."""

    code = "bad-data"


class ModelError(UserFault):
    """A model cannot be built, or does not match the market's terms."""

    code = "bad-model"


class IdentityError(UserFault):
    """An identity file cannot be read."""

    code = "bad-identity"


class StrategyFault(UserFault):
    """A strategy of the caller's own raised, or named something that is no amount.

    It costs a visit to the market, never training: an agent says it in a result instead of raising it.
    """

    code = "bad-strategy"


class MachineFault(MarketError):
    """This machine cannot do what is asked of it."""

    code = "machine"
    exit_code = 3


class PortInUse(MachineFault):
    """The address to listen on is taken by another program."""

    code = "port-in-use"


class IdentityInUse(MachineFault):
    """Another running peer uses the same identity."""

    code = "identity-in-use"


class DiskFull(MachineFault):
    """A file could not be written."""

    code = "disk-full"


class JournalDamaged(MachineFault):
    """The ledger or journal on disk does not verify."""

    code = "journal-damaged"


class DaemonFailed(MachineFault):
    """The libp2p daemon did not start, or died."""

    code = "daemon-failed"


class NetworkFault(MarketError):
    """The way to another peer is broken; trying again later may help."""

    code = "network"
    exit_code = 4


class BootstrapUnreachable(NetworkFault):
    """None of the initial peers answered."""

    code = "bootstrap-unreachable"


class MarketNotFound(NetworkFault):
    """No broker announces this market to the peers we reach."""

    code = "unknown-market"


class PeerUnreachable(NetworkFault):
    """A known peer cannot be reached."""

    code = "peer-unreachable"


class ConnectionLost(NetworkFault):
    """A stream broke or stalled; what was verified before is kept."""

    code = "connection-lost"


class BrokerChanged(ConnectionLost):
    """What was begun with one broker cannot go on now: the agent has joined another broker of the market."""

    code = "broker-changed"


class PeerFault(MarketError):
    """A peer sent something that breaks a rule. Goes back to it as (code, sentence)."""

    code = "peer-fault"
    exit_code = 5


class MalformedMessage(PeerFault):
    """Bytes that are not the record they should be."""

    code = "malformed"


class TooLarge(PeerFault):
    """A size above one of the limits in `p2pmarket.limits` or in the market's terms."""

    code = "too-large"


class BadSignature(PeerFault):
    """A signature that does not verify, or of another signer than expected."""

    code = "bad-signature"


class BadSeal(PeerFault):
    """A sealed parcel that does not open, or was sealed for another purpose."""

    code = "bad-seal"


class WrongVersion(PeerFault):
    """A peer speaks another version of the protocol."""

    code = "wrong-version"


class Expired(PeerFault):
    """A statement, bid or parcel past its time, or not yet valid."""

    code = "expired"


class BadSnapshot(PeerFault):
    """Parameters with a wrong name, shape, type, digest, or a value that is not finite."""

    code = "bad-snapshot"


class RuleBroken(PeerFault):
    """A well-formed request that the trade's state, the terms or the ledger do not allow."""

    code = "rule-broken"


class Refused(MarketError):
    """A peer refused our request. Carries the peer's own code and sentence."""

    code = "refused"
    exit_code = 6
