"""One stream to the hub."""

import asyncio

import grpc

from identity import OPTIONS
from slipway.provider.v1 import provider_service_pb2 as service
from slipway.provider.v1 import provider_service_pb2_grpc as rpc


class Session:
    """Says what is put into its queue, and gives what it hears to `hear(session, kind, body)`."""

    def __init__(self, gateway, identity, hear):
        self._channel = grpc.aio.secure_channel(gateway, identity.credentials(), OPTIONS)
        self._call = rpc.ProviderServiceStub(self._channel).Session()
        self._queue = asyncio.Queue()
        self._hear = hear
        self._ended = asyncio.get_running_loop().create_future()
        self.welcomed = asyncio.Event()
        self.drained = asyncio.Event()
        self.sequence = 0
        # Reports that wait for their ack, by sequence.
        self.waiting = {}
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]

    @property
    def is_open(self):
        """Whether it can still be spoken to."""
        return not self._ended.done()

    def say(self, written=None, **body):
        """Says one thing; `written` is called when it is on its way."""
        self._queue.put_nowait((service.ProviderMessage(**body), written))

    async def ended(self):
        """Waits for the end of the stream, and gives the error that ended it, if one did."""
        return await asyncio.shield(self._ended)

    async def close(self):
        """Says all that is queued, and ends the stream in good order."""
        self._queue.put_nowait(None)
        await asyncio.wait([self._ended], timeout=2)
        for task in self._tasks:
            task.cancel()
        await self._channel.close()

    async def _write(self):
        try:
            while (queued := await self._queue.get()) is not None:
                batch = [queued]
                while not self._queue.empty() and self._queue._queue[0] is not None:
                    batch.append(self._queue.get_nowait())
                await self._call.write(service.SessionRequest(messages=[message for message, _ in batch]))
                for _, written in batch:
                    if written is not None:
                        written()
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The reader knows why.
            pass

    async def _read(self):
        error = None
        try:
            async for frame in self._call:
                for message in frame.messages:
                    kind = message.WhichOneof("body")
                    # Newer hubs may say more.
                    if kind is not None:
                        self._hear(self, kind, getattr(message, kind))
        except grpc.aio.AioRpcError as ended_by:
            error = ended_by
        if not self._ended.done():
            self._ended.set_result(error)
