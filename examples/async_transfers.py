"""Move several files at once with asyncio, and give one of the calls up.

Shows: `xetstore.aio`, which has every verb of a store. A task that is cancelled gives up its own call, and the others
go on.
"""

import asyncio
import random
import tempfile
from pathlib import Path

from xetstore import aio


async def main(folder: Path) -> None:
    """Put three files at once, read one as a stream, cancel one download."""
    noise = random.Random(6)
    paths = [folder / f"part-{number}.bin" for number in range(3)]
    for path in paths:
        path.write_bytes(noise.randbytes(1_000_000))

    async with await aio.open(folder / "store") as store:
        stored = await asyncio.gather(*(store.put(path) for path in paths))
        print(f"stored at once: {len(stored)} files")

        received = 0
        async for block in store.iter_range(stored[0].hash, 500_000, 600_000):
            received += len(block)
        print(f"streamed: {received:,} bytes")

        given_up = asyncio.create_task(store.get(stored[1].hash, folder / "given-up.bin"))
        other = asyncio.create_task(store.get(stored[2].hash, folder / "other.bin"))
        given_up.cancel()
        await asyncio.wait([given_up, other])
        print(f"cancelled: {given_up.cancelled()}, the other: {other.result().size:,} bytes")
        assert not (folder / "given-up.bin").exists()


with tempfile.TemporaryDirectory() as temporary:
    asyncio.run(main(Path(temporary)))
