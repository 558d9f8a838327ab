"""A scenario: who trades what with whom, for how long, and what goes wrong meanwhile. Read from TOML, checked whole.

Knows: the document's sections and their bounds (docs/simulation.md explains every key). Refuses to know: what agents
learn (worlds/), how a run goes (run.py). Every mistake raises `ScenarioError`, which names the key.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from p2pmarket.errors import ScenarioError, SettingsError, TermsError
from p2pmarket.experiments.document import Document
from p2pmarket.experiments.table import Table
from p2pmarket.experiments.worlds.contract import PROTOCOLS, AgentPlan, WorldSettings
from p2pmarket.experiments.worlds.images import ImageSettings
from p2pmarket.experiments.worlds.regression import RegressionSettings
from p2pmarket.market import MarketTerms, parse_terms, terms_defaults
from p2pmarket.node.strategies.choosing import strategy_of
from p2pmarket.node.strategy import Strategy
from p2pmarket.options import resolve
from p2pmarket.settings import STRATEGY, NodeSettings
from p2pmarket.simulation.weather import Climate

WORLDS: dict[str, type[Any]] = {kind.KEY: kind for kind in (RegressionSettings, ImageSettings)}
MOST_AGENTS = 1024
"""As a barrier round takes."""
TERMS_SECTIONS = ("market", "trade", "appraisal", "pricing", "limits")
"""Of the market's terms that a scenario may set, as [terms.pricing]; the rest is the world's."""
_ANY_WORLD = {"model": {"name": "any"}, "task": [{"name": "any", "loss": "mse", "metric": "loss"}]}
MOST_IDLE_SECONDS = 300.0
"""Between two rounds, or while a process is away. Virtual time is walked through second by second, also where nothing
happens: the broker looks at its deadlines twice in each, agents ping and gossip. A run with such rounds takes five
times as long as one with rounds of 10 s where two agents trade, and twice as long with twenty."""
MOST_WAIT_SECONDS = 3600.0
"""Of the terms' waits, which a run sits out where an agent is missing or a bid stays open."""
_WHY = ", as a run walks through idle time too; shorten the waits in [terms] to have them end between two rounds"
MAX_SEED = 2**53 - 1
MAX_SEEDS = 10_000


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One point of a scenario's document."""

    name: str
    about: str
    method: str
    protocol: str
    rounds: int
    """Of training, each followed by a visit to the market from `trade_from` on."""
    trade_from: int
    trade_every: int
    measure_every: int
    """Rounds between two looks at the test data; the last round is always looked at."""
    round_seconds: float
    """Virtual, between the beginnings of two rounds."""
    seeds: tuple[int, ...]
    world: WorldSettings
    agents: tuple[AgentPlan, ...]
    terms: Mapping[str, Any]
    """Sections laid over the world's own."""
    climate: Climate | None
    """None: nothing goes wrong."""


def parse_scenario(document: Document, told: dict[str, Any] | None = None) -> Scenario:
    """A scenario from one point's document.

    :param told: takes the value of every key that was read by its path, with the defaults of those that are not given
    :raises ScenarioError: names the first wrong key
    """
    known = ("scenario", "agent", "terms", "faults", *WORLDS)
    unknown = sorted(set(document) - set(known) - {"sweep"})
    if unknown:
        raise ScenarioError(
            f"unknown section [{unknown[0]}] in the scenario; known are {', '.join(known)} and sweep"
            f"{_meant(unknown[0], document)}"
        )
    given = [key for key in WORLDS if key in document]
    if len(given) != 1:
        raise ScenarioError(f"a scenario has exactly one of the sections {' and '.join(f'[{key}]' for key in WORLDS)}")
    section = Table(document[given[0]], f"[{given[0]}]")
    world: WorldSettings = WORLDS[given[0]].read(section)
    section.done()
    table = Table(document.get("scenario", {}), "[scenario]")
    told = {} if told is None else told
    agents = _agents(document.get("agent"), world, told)
    scenario = Scenario(
        name=table.name("name"),
        about=table.text("about", ""),
        method=table.text("method", world.METHODS[0], world.METHODS),
        protocol=table.text("protocol", PROTOCOLS[0], PROTOCOLS),
        rounds=table.whole("rounds", low=1, high=1_000_000),
        trade_from=table.whole("trade_from", 1, low=1),
        trade_every=table.whole("trade_every", 1, low=1),
        measure_every=table.whole("measure_every", 1, low=1),
        round_seconds=table.number("round_seconds", 10.0, low=1.0, high=MOST_IDLE_SECONDS, why=_WHY),
        seeds=_seeds(table),
        world=world,
        agents=agents,
        terms=_terms(document.get("terms", {})),
        climate=_climate(document.get("faults")),
    )
    table.done()
    for name, read in (("scenario", table), (given[0], section)):
        told |= {f"{name}.{key}": value for key, value in read.asked.items() if value is not None}
    if scenario.climate is not None:
        told |= {f"faults.{key}": value for key, value in dataclasses.asdict(scenario.climate).items()}
        told["faults.delay_seconds"] = scenario.climate.delay_seconds[1]
    terms = terms_of(scenario, _ANY_WORLD)  # wrong ones are told now, not after the data were read
    for wait, milliseconds in (
        ("market.round_timeout_seconds", terms.round_timeout_ms),
        ("limits.bid_seconds", terms.bid_ms),
        ("limits.ask_seconds", terms.ask_ms),
    ):
        if milliseconds > MOST_WAIT_SECONDS * 1000:
            raise ScenarioError(
                f"terms.{wait} is {milliseconds / 1000:g}; in a simulation it is at most {MOST_WAIT_SECONDS:g}, as a "
                "run walks through idle time too"
            )
    if isinstance(world, RegressionSettings):
        world.check_terms(terms)
        world.check_agents(agents)
    return scenario


def _meant(key: str, document: Document) -> str:
    """Where a key belongs that stands where sections do; empty where no section has it."""
    fields = {field.name for field in dataclasses.fields(Scenario)} - {"world", "agents", "terms", "climate"}
    known = {"scenario": {*fields, "seed"}, "faults": {field.name for field in dataclasses.fields(Climate)}}
    for name, kind in WORLDS.items():
        if name in document:
            section = Table(document[name], f"[{name}]")
            with contextlib.suppress(ScenarioError):
                kind.read(section)
            known[name] = set(section.asked)
    known |= {f"terms.{name}": set(keys) for name, keys in terms_defaults().items() if name in TERMS_SECTIONS}
    places = (f"{section}.{key}" for section, keys in known.items() if key in keys)
    return f"; did you mean {place}?" if (place := next(places, None)) else ""


def terms_of(scenario: Scenario, from_world: Mapping[str, Any]) -> MarketTerms:
    """The market's terms: the world's, with the scenario's laid over, and what a simulation needs unless it says so.

    :raises ScenarioError: they are no terms
    """
    try:
        return parse_terms(terms_document(scenario, from_world))
    except TermsError as error:
        raise ScenarioError(f"[terms]: {error}") from None


def terms_document(scenario: Scenario, from_world: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a terms file has them, by section."""
    count = len(scenario.agents)
    document: dict[str, Any] = {
        "market": {"name": "simulated", "rounds": "barrier", "round_agents": max(2, count)},
        "pricing": {"opening_credit": "100"},
        "limits": {"submissions_per_hour": 1_000_000, "max_agents": max(2, count)},
    }
    for source in (from_world, scenario.terms):
        for section, values in source.items():
            document[section] = {**document.get(section, {}), **values} if isinstance(values, dict) else values
    return document


def _seeds(table: Table) -> tuple[int, ...]:
    """A list of seeds, or how many: 0, 1, ..."""
    alone, several = "seed" in table, "seeds" in table
    if alone and several:
        raise ScenarioError("[scenario] has both seed and seeds; leave one of them out")
    if not several:
        return (table.whole("seed", 0, high=MAX_SEED),)
    if table.holds("seeds", int):
        return tuple(range(table.whole("seeds", low=1, high=MAX_SEEDS)))
    if not table.holds("seeds", list):
        raise ScenarioError("seeds in [scenario] is how many, or a list of whole numbers from 0 on")
    seeds = table.many("seeds")
    if not 1 <= len(seeds) <= MAX_SEEDS or not all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds):
        raise ScenarioError(f"seeds in [scenario] is a list of 1 to {MAX_SEEDS} whole numbers from 0 to {MAX_SEED}")
    return tuple(dict.fromkeys(seeds))


def _agents(tables: object, world: WorldSettings, told: dict[str, Any]) -> tuple[AgentPlan, ...]:
    if not isinstance(tables, list) or not tables:
        raise ScenarioError("a scenario needs its agents: one [[agent]] table for each kind of them")
    found: list[AgentPlan] = []
    for number, values in enumerate(tables):
        table = Table(values, f"[[agent]] {number}")
        name = table.name("name", f"agent-{number}")
        table.where = f"[[agent]] {name!r}"
        count = table.whole("count", 1, low=1, high=MOST_AGENTS)
        task = table.text("task", world.tasks[0], world.tasks)
        strategy_name = table.text("strategy", "default")
        knobs = table.table("knobs")
        endowment = world.endowment(table)
        table.done()
        place = name if "name" in values else str(number)  # as a path finds it
        asked = {**table.asked, "count": values.get("count")}  # one that is not given numbers no names
        told |= {f"agent.{place}.{key}": value for key, value in asked.items() if value is not None}
        if len(found) + count > MOST_AGENTS:
            raise ScenarioError(f"more than {MOST_AGENTS} agents, which is what a round takes")
        for one in [f"{name}-{one}" for one in range(count)] if "count" in values else [name]:
            strategy = _strategy(strategy_name, knobs, table.where)  # one each: a class of one's own may remember
            found.append(AgentPlan(one, task, strategy, strategy_name, endowment))
    names = Counter(plan.name for plan in found)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice or "broker" in names:
        raise ScenarioError(f"an agent cannot be called {(twice or ['broker'])[0]!r}: the name is taken")
    return tuple(found)


def _strategy(name: str, knobs: Mapping[str, Any], where: str) -> Strategy:
    """The strategy of that name; knobs as `p2pmarket node` takes them, others where a class of one's own has them."""
    common = {field.name for field in dataclasses.fields(NodeSettings) if field.metadata.get("group") == STRATEGY}
    common -= {"strategy"}
    given = {key: value for key, value in knobs.items() if key in common}
    own = {key: value for key, value in knobs.items() if key not in common}
    try:
        settings, origins = resolve(NodeSettings, {**given, "strategy": name}, {})
        strategy = strategy_of(settings, origins)
        has = {field.name for field in dataclasses.fields(strategy) if field.init}
        if unknown := sorted(set(own) - has):
            raise ScenarioError(f"{where}: the strategy {name} has no knob {unknown[0]!r}; {_knobs_told(has)}")
        return dataclasses.replace(strategy, **own) if own else strategy
    except ScenarioError:
        raise
    except SettingsError as error:
        raise ScenarioError(f"{where}: {str(error).replace('the flag --', 'knobs.')}") from None
    except Exception as error:  # a class of one's own may fail in any way
        raise ScenarioError(f"{where}: the strategy {name} does not take these knobs: {error}") from error


def _knobs_told(names: Collection[str]) -> str:
    return f"it has {', '.join(sorted(names))}" if names else "it has none"


def _terms(values: object) -> Mapping[str, Any]:
    table = Table(values, "[terms]")
    found = {section: table.table(section) for section in TERMS_SECTIONS}
    table.done()
    return {section: values for section, values in found.items() if values}


def _climate(values: object) -> Climate | None:
    if values is None:
        return None
    table, usual = Table(values, "[faults]"), Climate()
    climate = Climate(
        delay_seconds=(0.0, table.number("delay_seconds", usual.delay_seconds[1], high=60.0)),
        slow=table.number("slow", usual.slow, high=1.0),
        slow_seconds=table.number("slow_seconds", usual.slow_seconds, high=3600.0),
        lost=table.number("lost", usual.lost, high=0.5),
        crash=table.number("crash", usual.crash, high=0.1),
        partings=table.whole("partings", usual.partings, high=100_000),
        parted_seconds=table.number("parted_seconds", usual.parted_seconds, high=1e6),
        away_seconds=table.number("away_seconds", usual.away_seconds, high=MOST_IDLE_SECONDS, why=_WHY),
        skew_ms=table.whole("skew_ms", usual.skew_ms, high=3_600_000),
    )
    table.done()
    return climate
