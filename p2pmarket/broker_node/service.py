"""A broker as a program: from settings to a running market, and back down in order.

Knows: in which order to check, open and start things, so that what is wrong is said before anything is announced.
Refuses to know: how events are shown (`emit` does). Raises the errors of whatever could not be started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from p2pmarket import limits
from p2pmarket.alignment import PermutationSpec
from p2pmarket.alignment.automatic import find_symmetry
from p2pmarket.appraisal.evaluator import evaluators_for
from p2pmarket.appraisal.validation import Validation
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.benches import TaskBench
from p2pmarket.broker_node.broker import Broker
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.datasets import Dataset, load_dataset
from p2pmarket.errors import ModelError, SettingsError
from p2pmarket.events import Emit, stop_asked
from p2pmarket.files import private_folder
from p2pmarket.ledger.journal import Ledger
from p2pmarket.market import MarketTerms, Task, load_terms
from p2pmarket.messages import PROTOCOL_VERSION, BrokerStatement
from p2pmarket.models import build_model, permutation_spec
from p2pmarket.network.directory import announce
from p2pmarket.network.libp2p import Libp2pTransport
from p2pmarket.parameters.snapshot import schema_of
from p2pmarket.settings import BrokerSettings
from p2pmarket.tasks import end_tasks
from p2pmarket.units import Clock, now_ms

log = logging.getLogger(__name__)

STATUS_SECONDS = 30.0
SYMMETRY_SAMPLES = 4
"""Validation samples that a model is traced with."""


async def run_broker(settings: BrokerSettings, emit: Emit) -> None:
    """Runs until SIGINT or SIGTERM.

    :raises MarketError: something could not be started; says what and what to do
    """
    if settings.market is None:
        raise SettingsError("a broker needs its market's terms: give --market TERMS.toml")
    terms = load_terms(settings.market)
    appraiser = await asyncio.to_thread(load_appraiser, settings, terms)
    folder = private_folder(settings.folder)
    identity = Identity.load_or_create(settings.identity_file)
    keyring = Keyring.open(folder / "keys", identity, now_ms)
    async with contextlib.AsyncExitStack() as stack:
        transport = await Libp2pTransport.create(settings.network())
        stack.push_async_callback(transport.close)
        ledger = LedgerThread(lambda: Ledger.open(folder / "ledger.sqlite", identity, terms.name))
        await ledger.open()
        stack.push_async_callback(ledger.close)
        broker = Broker(
            transport=transport,
            identity=identity,
            keyring=keyring,
            terms=terms,
            ledger=ledger,
            appraiser=appraiser,
            directory=folder,
            clock=now_ms,
        )
        stack.push_async_callback(broker.close)
        await broker.start()
        try:
            await _serve(settings, terms, identity, transport, broker, emit)
        finally:
            emit({"event": "stopping"})


def load_appraiser(settings: BrokerSettings, terms: MarketTerms) -> Appraiser:
    """The appraiser for the settings' validation data, tried out.

    :raises ModelError, DataError, SettingsError, TermsError: model, data and terms do not fit each other
    """
    sources = validation_sources(settings.validation, terms)
    data = {task: load_dataset(source, allow_import=True) for task, source in sources.items()}
    return build_appraiser(
        terms, data, device=settings.device, seed=settings.seed, select_fraction=settings.select_fraction
    )


def build_appraiser(
    terms: MarketTerms, data: Mapping[str, Dataset], *, device: str, seed: int, select_fraction: float = 0.5
) -> Appraiser:
    """Model, permutation spec and validation data of a market, tried out on one another.

    The terms are the operator's own configuration: a factory that they name is imported.

    :raises ModelError, DataError: they do not fit each other
    :raises TermsError: the groups do not divide what is for sale
    """
    benches = {}
    for task in terms.tasks:
        samples = data[task.name]
        validation = Validation.split(samples.inputs, samples.targets, select_fraction=select_fraction, seed=seed)
        benches[task.name] = build_bench(terms, task, validation, device=device)
    appraiser = Appraiser(terms, benches, seed=seed)
    appraiser.self_test()
    return appraiser


def build_bench(terms: MarketTerms, task: Task, validation: Validation, **options: Any) -> TaskBench:
    """What one task of a market is measured with; not tried out yet.

    :param options: those of `evaluators_for`
    :raises ModelError: the model cannot be built
    """
    arguments = terms.arguments(task.name)
    model = build_model(terms.model, arguments, allow_import=True)
    spec, symmetries = symmetries_of(terms.model, arguments, model, validation.select_inputs[:SYMMETRY_SAMPLES])
    return TaskBench(
        model=model,
        spec=spec,
        symmetries=symmetries,
        evaluators=evaluators_for(model, loss=task.loss, metric=task.metric, **options),
        validation=validation,
        schema=schema_of(model),
    )


def symmetries_of(
    reference: str, arguments: Mapping[str, object], model: nn.Module, inputs: Tensor
) -> tuple[PermutationSpec | None, str]:
    """A model's permutation spec, written by hand or found in its graph, and in words where it comes from.

    A model in which none can be found is traded as it is: sellers' units stay in their order.

    :raises ModelError: a hand-written spec's function fails
    """
    spec = permutation_spec(reference, arguments, model)
    if spec is not None:
        return spec, f"permutation classes written by hand: {len(spec.classes)}"
    try:
        found = find_symmetry(model, (inputs,))
    except ModelError as error:
        log.warning("units are not aligned: %s", error)
        return None, f"units are not aligned: {error}"
    text = f"permutation classes found: {len(found.spec.classes)}, of {found.coverage:.0%} of the parameters"
    return found.spec if found.spec.classes else None, text


def validation_sources(given: tuple[str, ...], terms: MarketTerms) -> dict[str, str]:
    """Which data each task is validated on, from "TASK=SOURCE", or one "SOURCE" for a market's only task.

    :raises SettingsError: a task without data, or data without a task
    """
    names = [task.name for task in terms.tasks]
    sources: dict[str, str] = {}
    for text in given:
        task, equals, source = text.partition("=")
        if not equals:
            if len(names) > 1:
                raise SettingsError(f"the market has the tasks {', '.join(names)}; write --validation TASK={text}")
            task, source = names[0], text
        if task not in names:
            raise SettingsError(f"--validation names the task {task!r}; the market has {', '.join(names)}")
        sources[task] = source
    missing = [name for name in names if name not in sources]
    if missing:
        raise SettingsError(f"no validation data for the task {missing[0]!r}: give --validation {missing[0]}=FILE.npz")
    return sources


def statement_for(
    public_name: str, terms: MarketTerms, identity: Identity, addresses: tuple[str, ...], clock: Clock
) -> bytes:
    """The signed BrokerStatement of this moment."""
    now = clock()
    return sign(
        identity,
        BrokerStatement(
            market=terms.name,
            broker=identity.peer_id,
            version=PROTOCOL_VERSION,
            public_name=public_name,
            addresses=addresses[:4],
            issued_ms=now,
            expires_ms=now + limits.ANNOUNCE_EXPIRY_SECONDS * 1000,
        ),
    )


async def _serve(
    settings: BrokerSettings,
    terms: MarketTerms,
    identity: Identity,
    transport: Libp2pTransport,
    broker: Broker,
    emit: Emit,
) -> None:
    addresses = await transport.addresses()

    def sign_statement() -> bytes:
        return statement_for(settings.public_name, terms, identity, addresses, now_ms)

    ready = {
        "event": "ready",
        "role": "broker",
        "market": terms.name,
        "peer_id": identity.peer_id,
        "addresses": list(addresses),
        "alignment": broker.alignment,
        "state": str(Path(settings.folder)),
    }
    with stop_asked(on_eof=settings.stop_on_eof) as asked:
        announcing = asyncio.create_task(announce(transport, sign_statement, again=transport.restarted))
        status = asyncio.create_task(_report_status(broker, emit))
        emit(ready)
        try:
            await asked.wait()
        finally:
            await end_tasks((announcing, status))


async def _report_status(broker: Broker, emit: Emit) -> None:
    started = time.monotonic()
    while True:
        await asyncio.sleep(STATUS_SECONDS)
        emit(
            {
                "event": "status",
                "agents": broker.agents,
                **dict(broker.counts),
                **broker.devices,
                "uptime_s": round(time.monotonic() - started),
            }
        )
