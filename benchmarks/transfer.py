"""How fast is a signed and sealed parcel against a raw stream, and how much memory does it take?

`python -m benchmarks.transfer` (a table) or `--json`; `--mib 512 --rounds 5`.

Two processes on this machine, each with its own libp2p daemon, over 127.0.0.1. Every round sends the same number of
bytes three ways, one after the other on new streams; the figures are medians over the rounds:

raw     parameters in the sender's memory to parameters in the receiver's, which were there before: the sender writes
        1 MiB after the other, the receiver copies what it reads into place; nothing is checked or kept on a disk.
        This is the denominator of `ratio`.
files   as raw, but read from the sender's file and written to the receiver's, each in a worker thread, one batch ahead.
sealed  `send_parcel` and `receive_parcel` as the market uses them: read from a file, sealed, opened, checked, written
        to a file, until the sender has the verdict. HPKE and both signatures are inside the time.

So `ratio` (sealed / raw) charges the parcel for both disks as well, which is what lets it resume after a restart, and
`ratio_to_files` for cryptography and protocol alone. Nothing is synced: files stay in the page cache where it has room.
The file of the round before is removed just before each way, so that its pages are used again: a virtual machine that
gives free memory back to its host pays ten times a write's cost (2 ms a MiB, measured) at the first touch of a page,
and that would measure the host. The file holds float32 normal values, which the transfer does not look into.

Memory is the peak of resident memory (VmHWM, reset before each parcel) above what was resident before, in the process
that runs the market; the daemons, which hold the same for raw streams, are not in it.
`wire_bytes` counts header, chunks, tags and trailer of one packed snapshot of 4 M normal values per codec.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from p2pmarket.crypto.header import Expectation
from p2pmarket.crypto.keyring import Keyring, verify_statement
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.sealing import TAG_BYTES, TRAILER_BYTES
from p2pmarket.network.libp2p import Libp2pTransport
from p2pmarket.network.spool import Incoming, Outgoing
from p2pmarket.network.transfer import receive_parcel, send_parcel
from p2pmarket.network.transport import Stream
from p2pmarket.settings import NetworkSettings
from p2pmarket.units import now_ms

MIB = 1024 * 1024
BATCH = 2 * MIB
WAYS = ("raw", "files", "sealed")
TRADE, DIGEST = b"t" * 16, b"d" * 32


def memory_mib(name: str) -> float:
    """A figure of this process's memory from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {name} on this system")


def reset_peak() -> float:
    """Sets VmHWM to what is resident now, and returns that."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mib("VmRSS")


async def start(folder: Path, peers: tuple[str, ...] = ()) -> tuple[Identity, Libp2pTransport]:
    identity = Identity.load_or_create(folder / "identity")
    settings = NetworkSettings(identity_path=folder / "identity", initial_peers=peers)
    return identity, await Libp2pTransport.create(settings)


# ---- the receiver's process ---------------------------------------------------------------------------------------


async def receiver(folder: Path, total: int) -> None:
    """Serves until its standard input ends."""
    identity, transport = await start(folder)
    keyring = Keyring.open(folder / "keyring", identity, now_ms)
    peak = 0.0

    parameters = memoryview(bytearray(total))

    async def raw(stream: Stream) -> None:
        for start in range(0, total, MIB):
            parameters[start : start + MIB] = await stream.read_exactly(MIB)
        await finish(stream)

    async def files(stream: Stream) -> None:
        writing = asyncio.create_task(asyncio.sleep(0))
        with (folder / "files").open("wb", buffering=0) as file:
            for start in range(0, total, BATCH):
                data = [await stream.read_exactly(MIB) for _ in range(BATCH // MIB)]
                await writing
                writing = asyncio.create_task(asyncio.to_thread(write_all, file.fileno(), data, start))
            await writing
        await finish(stream)

    async def sealed(stream: Stream) -> None:
        nonlocal peak
        before = reset_peak()
        expected = Expectation(
            "benchmark", identity.peer_id, "offer", TRADE, stream.peer_id, identity.peer_id, DIGEST, total
        )
        await receive_parcel(stream, Incoming.open(folder / "incoming"), expected, keyring, now_ms)
        peak = max(peak, memory_mib("VmHWM") - before)

    async def clean(stream: Stream) -> None:
        """Removes what the last round of a way left, just before the next one."""
        way = (await stream.read_exactly(8)).strip().decode()
        if way == "files":
            (folder / "files").unlink(missing_ok=True)
        elif way == "sealed":
            Incoming.open(folder / "incoming").remove()
        await stream.write(json.dumps({"peak": peak}).encode().ljust(64))
        await stream.read_exactly(1)

    for name, handler in (("raw", raw), ("files", files), ("sealed", sealed), ("clean", clean)):
        await transport.serve(name, handler)
    hello = {"peer": identity.peer_id, "addresses": await transport.addresses(), "keys": keyring.statement.hex()}
    print(json.dumps(hello), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await transport.close()


async def finish(stream: Stream) -> None:
    await stream.write(b"!")
    await stream.read_exactly(1)


def write_all(file: int, pieces: list[bytes], offset: int) -> None:
    for piece in pieces:
        written = 0
        while written < len(piece):
            written += os.pwrite(file, memoryview(piece)[written:], offset + written)
        offset += len(piece)


# ---- the sender's process -----------------------------------------------------------------------------------------


async def sender(folder: Path, total: int, rounds: int, hello: dict[str, Any]) -> dict[str, float]:
    identity, transport = await start(folder, tuple(hello["addresses"][:1]))
    keys = verify_statement(bytes.fromhex(hello["keys"]), peer=hello["peer"], now_ms=now_ms())
    outgoing = Outgoing.create(
        folder / "outgoing", folder / "plain", identity=identity, receiver=keys, market="benchmark",
        broker=hello["peer"], purpose="offer", trade=TRADE, manifest_digest=DIGEST, issued_ms=now_ms(),
        expires_ms=now_ms() + 3600_000,
    )  # fmt: skip
    parameters = memoryview((outgoing.directory / "plain").read_bytes())
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peak = 0.0
    for _ in range(rounds + 1):
        for way in WAYS:
            (outgoing.directory / "tags").unlink(missing_ok=True)
            await cleaned(await transport.open(hello["peer"], "clean"), way)
            stream = await transport.open(hello["peer"], way)
            before, began = reset_peak(), time.perf_counter()
            if way == "sealed":
                await send_parcel(stream, outgoing)
            else:
                await (
                    send_raw(stream, parameters) if way == "raw" else send_file(stream, outgoing.directory / "plain")
                )
            seconds[way].append(time.perf_counter() - began)
            if way == "sealed":
                peak = max(peak, memory_mib("VmHWM") - before)
    answer = await cleaned(await transport.open(hello["peer"], "clean"), "")
    await transport.close()
    # The first round warms up connections and the page cache.
    speeds = {way: total / MIB / statistics.median(times[1:]) for way, times in seconds.items()}
    return {
        "raw_mib_s": round(speeds["raw"], 1),
        "files_mib_s": round(speeds["files"], 1),
        "sealed_mib_s": round(speeds["sealed"], 1),
        "ratio": round(speeds["sealed"] / speeds["raw"], 3),
        "ratio_to_files": round(speeds["sealed"] / speeds["files"], 3),
        "sender_peak_extra_mib": round(peak, 1),
        "receiver_peak_extra_mib": round(answer["peak"], 1),
    }


async def send_raw(stream: Stream, parameters: memoryview) -> None:
    for start in range(0, len(parameters), MIB):
        await stream.write(parameters[start : start + MIB])
    await verdict(stream)


async def send_file(stream: Stream, path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        data = await asyncio.to_thread(file.read, BATCH)
        while data:
            _, data = await asyncio.gather(stream.write(data), asyncio.to_thread(file.read, BATCH))
    await verdict(stream)


async def verdict(stream: Stream) -> None:
    await stream.read_exactly(1)
    await stream.close()


async def cleaned(stream: Stream, way: str) -> dict[str, float]:
    await stream.write(way.encode().ljust(8))
    answer: dict[str, float] = json.loads(await stream.read_exactly(64))
    await stream.close()
    return answer


# ---- bytes on the wire per codec ----------------------------------------------------------------------------------


def wire_bytes(folder: Path) -> dict[str, int]:
    import torch

    from p2pmarket.parameters.packing import pack
    from p2pmarket.parcel import CODECS

    tensors = {"weight": torch.randn(4, 1024, 1024, generator=torch.Generator().manual_seed(0))}
    identity = Identity.generate()
    keyring = Keyring.open(folder / "wire-keyring", identity, now_ms)
    keys = verify_statement(keyring.statement, peer=identity.peer_id, now_ms=now_ms())
    sizes = {}
    for codec in CODECS:
        for zstd in (False, True):
            plain = folder / "packed"
            pack(tensors, plain, market="benchmark", task="task", step=0, codec=codec, zstd=zstd, salt=bytes(16))
            parcel = Outgoing.create(
                folder / "wire", plain, identity=identity, receiver=keys, market="benchmark", broker=identity.peer_id,
                purpose="offer", trade=TRADE, manifest_digest=DIGEST, issued_ms=now_ms(), expires_ms=now_ms() + 60_000,
            )  # fmt: skip
            context = parcel.context
            name = codec + ("+zstd" if zstd else "")
            sizes[name] = 4 + len(parcel.header) + context.plain_bytes + context.chunks * TAG_BYTES + TRAILER_BYTES
            parcel.remove()
    return sizes


# ---- the parent ---------------------------------------------------------------------------------------------------


def write_plain(path: Path, total: int) -> None:
    chance = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(total // MIB):
            file.write(chance.standard_normal(MIB // 4, dtype=np.float32).tobytes())


def measure(mib: int, rounds: int) -> dict[str, Any]:
    program = [sys.executable, "-m", "benchmarks.transfer", "--mib", str(mib), "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as name:
        folders = {role: Path(name) / role for role in ("receiver", "sender")}
        for folder in folders.values():
            folder.mkdir()
        write_plain(folders["sender"] / "plain", mib * MIB)
        with subprocess.Popen(
            [*program, "--role", "receiver", "--folder", folders["receiver"]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            hello = process.stdout.readline().strip()
            result = subprocess.run(
                [*program, "--role", "sender", "--folder", folders["sender"], "--hello", hello],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            process.stdin.close()
        figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return {"mib": mib, "rounds": rounds, **figures, "wire_bytes": wire_bytes(Path(name))}


def show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", title=f"{figures['mib']} MiB, median of {figures['rounds']} rounds")
    for name, value in figures.items():
        if name not in ("mib", "rounds", "wire_bytes"):
            table.add_row(name, str(value))
    plain = figures["wire_bytes"]["none"]
    for codec, size in figures["wire_bytes"].items():
        table.add_row(f"wire bytes, {codec}", f"{size:,} ({size / plain:.2f})")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sealed parcels against a raw stream over libp2p.")
    parser.add_argument("--mib", type=int, default=512, help="size of the parcel, an even number")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("receiver", "sender"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--hello", help=argparse.SUPPRESS)
    options = parser.parse_args()
    total = options.mib * MIB
    if options.role == "receiver":
        asyncio.run(receiver(options.folder, total))
    elif options.role == "sender":
        print(json.dumps(asyncio.run(sender(options.folder, total, options.rounds, json.loads(options.hello)))))
    else:
        figures = measure(options.mib, options.rounds)
        if options.json:
            print(json.dumps(figures))
        else:
            show(figures)


if __name__ == "__main__":
    main()
