#!/usr/bin/env python3
"""A provider made from proto/ alone, with stock gRPC. Its cloud is a folder.

Environment: SLIPWAY_GATEWAY, SLIPWAY_STATE_DIR, SLIPWAY_INSTANCE_NAME, and for the first start SLIPWAY_JOIN_TOKEN.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
import uuid

import grpc
from google.protobuf.json_format import MessageToDict

from cloud import Cloud, is_running
from identity import Identity, enrol, renew
from session import Session
from slipway.provider.v1 import failure_pb2, inventory_pb2, session_pb2, work_pb2

EFFECT_SECONDS = 1
LIST_SECONDS = 1
CAPACITY = 10
TYPES = ["small", "large"]

CONFIG_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"directory": {"type": "string", "minLength": 1}},
    "required": ["directory"],
    "additionalProperties": False,
}
CREDENTIALS_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"token": {"type": "string"}},
    "required": ["token"],
    "additionalProperties": False,
}


class Failed(Exception):
    """An attempt failed, and why."""

    def __init__(self, code, message, retryable):
        super().__init__(message)
        self.failure = failure_pb2.Failure(code=code, message=message, retryable=retryable)


class Over(Exception):
    """The claim is over: nothing more may be done or said."""


class Changed(Exception):
    """The wish is another one now."""


class Claim:
    """One item that this process holds."""

    def __init__(self, claimed):
        self.item = claimed.item
        self.fence = claimed.fence
        self.desired = claimed.desired
        self.observed = claimed.observed
        self.is_over = False
        self.task = None

    def check(self, generation):
        """Raises where the work must not go on."""
        if self.is_over:
            raise Over()
        if self.desired.generation != generation:
            raise Changed()


class Provider:
    """One process: what it holds, what it has said, and the stream that it says it over."""

    def __init__(self, gateway, state_dir, instance_name):
        self.gateway = gateway
        self.state_dir = state_dir
        self.instance_name = instance_name
        # Kept over all streams of this process, and no longer.
        self.instance_id = str(uuid.uuid4())
        self.identity = None
        self.session = None
        self.leaving = None
        self.claims = {}
        # Reports that the hub has not stored yet: they outlive their stream.
        self.pending = []
        self.settings = None
        self.settings_version = None
        self.settings_failure = None
        self.lease_seconds = 0
        self.heartbeat_seconds = 1
        # When the last sign of life went out, by a clock that nobody sets.
        self.alive_at = time.monotonic()
        self.stopping = asyncio.Event()

    # ── connection ──

    async def run(self):
        """Serves until it is told to stop."""
        self.identity = Identity.load(self.state_dir) or await self.enrol()
        beside = [asyncio.create_task(work()) for work in (self.beat, self.look_around, self.keep_renewed)]
        serving = asyncio.create_task(self.serve())
        stop = asyncio.create_task(self.stopping.wait())
        await asyncio.wait([serving, stop], return_when=asyncio.FIRST_COMPLETED)
        for task in beside:
            task.cancel()
        if serving.done():
            serving.result()
        serving.cancel()
        await self.stop()

    async def enrol(self):
        """Enrols, and tries again where the hub only cannot do it now."""
        token = os.environ.pop("SLIPWAY_JOIN_TOKEN", "")
        if token == "":
            raise SystemExit("there is no identity yet: start once with SLIPWAY_JOIN_TOKEN")
        while True:
            try:
                identity = await enrol(self.gateway, token, self.instance_name)
                identity.save(self.state_dir)
                return identity
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise SystemExit(f"the hub refuses the enrolment: {error.code().name}") from None
                await asyncio.sleep(random.uniform(0.2, 1))

    async def serve(self):
        """Keeps a stream open, for ever."""
        failures = 0
        while True:
            session = Session(self.gateway, self.identity, self.hear)
            session.say(hello=self.hello())
            drained = asyncio.create_task(session.drained.wait())
            ended = asyncio.create_task(session.ended())
            await asyncio.wait([drained, ended], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                # Nothing is lost: it goes on to be served until the next one is welcomed.
                self.leaving = session
                continue
            error = ended.result()
            if error is not None and error.code() in (
                grpc.StatusCode.FAILED_PRECONDITION,
                grpc.StatusCode.PERMISSION_DENIED,
            ):
                raise SystemExit(f"the hub refuses the session: {error.code().name}")
            failures = 0 if session.welcomed.is_set() else failures + 1
            await asyncio.sleep(random.uniform(0.1, min(10, 0.5 * 2**failures)))

    def hello(self):
        """How it presents itself, with all that it holds."""
        hello = session_pb2.Hello(
            protocol_versions=[1],
            instance_id=self.instance_id,
            instance_name=self.instance_name,
            provider_version="1",
            family="python-folder",
            kind=session_pb2.PROVIDER_KIND_DYNAMIC,
            capabilities=[session_pb2.CAPABILITY_LIST],
            config_schema=json.dumps(CONFIG_SCHEMA),
            credentials_schema=json.dumps(CREDENTIALS_SCHEMA),
        )
        hello.effect_timeout.FromSeconds(EFFECT_SECONDS)
        for claim in self.claims.values():
            hello.holds.add(item=claim.item, fence=claim.fence, generation=claim.desired.generation)
        return hello

    async def keep_renewed(self):
        """Renews the certificate from half of its life on; the next stream uses the new one."""
        while True:
            await asyncio.sleep(self.identity.renew_in())
            try:
                self.identity = await renew(self.gateway, self.identity)
                self.identity.save(self.state_dir)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(1)

    async def stop(self):
        """Hands back what is held, and closes."""
        session = self.session
        if session is None or not session.is_open:
            return
        session.say(ready=session_pb2.Ready(capacity=0))
        for claim in list(self.claims.values()):
            claim.task.cancel()
            self.release(claim, retry_seconds=0)
        await session.close()

    # ── what the hub says ──

    def hear(self, session, kind, body):
        """Takes apart what the hub says."""
        handlers = {
            "welcome": self.welcome,
            "claimed": self.claimed,
            "desired_changed": self.desired_changed,
            "revoked": lambda _session, revoked: self.end_claim(revoked.item.id, revoked.fence),
            "ack": self.ack,
            "nack": self.nack,
            "configure": lambda session, configure: self.configure(session, configure, answer=True),
            "drain": lambda session, _drain: session.drained.set(),
        }
        if kind in handlers:
            handlers[kind](session, body)

    def welcome(self, session, welcome):
        """A new stream is the one in use from here on."""
        if welcome.protocol_version != 1:
            print("the hub chose a protocol version that was not offered", file=sys.stderr)
            os._exit(1)
        self.session, left, self.leaving = session, self.leaving, None
        session.welcomed.set()
        self.heartbeat_seconds = welcome.heartbeat_interval.ToMilliseconds() / 1000
        self.lease_seconds = welcome.lease_duration.ToMilliseconds() / 1000
        self.alive_at = time.monotonic()
        bound = {(held.item.id, held.fence) for held in welcome.bound}
        for claim in list(self.claims.values()):
            if (claim.item.id, claim.fence) not in bound:
                self.end_claim(claim.item.id, claim.fence)
        self.configure(session, welcome.configure, answer=False)
        self.say_heartbeat()
        for waiting in list(self.pending):
            self.transmit(waiting)
        if left is not None:
            asyncio.create_task(left.close())

    def configure(self, session, configure, answer):
        """Proves new settings before the ones in use are dropped."""
        failure = None
        if configure.version != self.settings_version:
            settings = {name: MessageToDict(getattr(configure, name)) for name in ("config", "credentials")}
            failure = self.wrong_with(settings)
            if failure is None:
                self.settings, self.settings_version = settings, configure.version
            self.settings_failure = failure if self.settings is None else None
        if answer:
            answered = session_pb2.Configured(version=configure.version, ok=failure is None, failure=failure)
            session.say(configured=answered)
        session.say(ready=session_pb2.Ready(capacity=0 if self.settings is None else CAPACITY))
        self.say_heartbeat()

    def wrong_with(self, settings):
        """What is wrong with settings, without repeating what they hold; None: nothing."""
        directory, token = settings["config"].get("directory"), settings["credentials"].get("token")
        if not isinstance(directory, str) or directory == "":
            message = "config.directory: give the folder that is the cloud"
            return failure_pb2.Failure(code=failure_pb2.FAILURE_CODE_INVALID_SPEC, message=message)
        if not isinstance(token, str) or not token.startswith("good-"):
            message = "credentials.token: the cloud refuses it"
            return failure_pb2.Failure(code=failure_pb2.FAILURE_CODE_CREDENTIALS, message=message)
        return None

    def claimed(self, session, claimed):
        """An item is ours, or its claim is said once more."""
        held = self.claims.get(claimed.item.id)
        if held is not None and held.fence >= claimed.fence:
            if held.fence == claimed.fence:
                held.desired = claimed.desired
            return
        if held is not None:
            self.end_claim(held.item.id, held.fence)
        claim = Claim(claimed)
        if self.settings is None or self.stopping.is_set():
            self.release(claim, retry_seconds=5)
            return
        self.claims[claim.item.id] = claim
        claim.task = asyncio.create_task(self.work(claim))

    def desired_changed(self, _session, changed):
        """What is wished is another thing now."""
        claim = self.claims.get(changed.item.id)
        if claim is not None and claim.fence == changed.fence and changed.desired.generation > claim.desired.generation:
            claim.desired = changed.desired

    def end_claim(self, item_id, fence):
        """A claim is not ours any more."""
        claim = self.claims.get(item_id)
        if claim is None or claim.fence != fence:
            return
        claim.is_over = True
        del self.claims[item_id]
        for waiting in [waiting for waiting in self.pending if waiting[0] is claim]:
            self.settle(waiting, Over())

    # ── what is said of items ──

    async def report(self, claim, generation, **fields):
        """Says something of an item, until the hub has stored it."""
        claim.check(generation)
        done = asyncio.get_running_loop().create_future()
        waiting = (claim, work_pb2.Report(item=claim.item, fence=claim.fence, generation=generation, **fields), done)
        self.pending.append(waiting)
        self.transmit(waiting)
        await done
        if "observed" in fields:
            claim.observed.MergeFrom(fields["observed"])
        claim.check(generation)

    def transmit(self, waiting):
        """Says a report over the stream in use; sequences belong to the stream."""
        session = self.session
        if waiting not in self.pending or session is None or not session.is_open:
            return
        session.sequence += 1
        session.waiting[session.sequence] = waiting
        report = work_pb2.Report()
        report.CopyFrom(waiting[1])
        report.sequence = session.sequence
        session.say(report=report)

    def settle(self, waiting, error=None):
        """A report needs no more waiting for."""
        if waiting not in self.pending:
            return
        self.pending.remove(waiting)
        if not waiting[2].done():
            waiting[2].set_exception(error) if error is not None else waiting[2].set_result(None)

    def ack(self, session, ack):
        """A report is stored."""
        waiting = session.waiting.pop(ack.sequence, None)
        if waiting is not None:
            self.settle(waiting)

    def nack(self, session, nack):
        """A report was refused."""
        waiting = session.waiting.pop(nack.sequence, None)
        if waiting is None or waiting not in self.pending:
            return
        if nack.reason == work_pb2.NACK_REASON_UNAVAILABLE:
            asyncio.get_running_loop().call_later(0.5, self.transmit, waiting)
        elif nack.reason == work_pb2.NACK_REASON_INVALID:
            code = failure_pb2.FAILURE_CODE_INTERNAL
            self.settle(waiting, Failed(code, f"the hub refused a report: {nack.message}", False))
        elif session is self.session:
            self.end_claim(waiting[0].item.id, waiting[0].fence)

    def release(self, claim, settled_generation=None, retry_seconds=0):
        """Gives an item back."""
        self.claims.pop(claim.item.id, None)
        claim.is_over = True
        for waiting in [waiting for waiting in self.pending if waiting[0] is claim]:
            self.settle(waiting, Over())
        release = work_pb2.Release(item=claim.item, fence=claim.fence)
        if settled_generation is not None:
            release.settled_generation = settled_generation
        else:
            release.retry_after.FromSeconds(retry_seconds)
        if self.session is not None and self.session.is_open:
            self.session.say(release=release)

    # ── work ──

    async def work(self, claim):
        """Brings what is to what is wished, and lets go."""
        while not claim.is_over:
            generation = claim.desired.generation
            try:
                absent = claim.desired.presence == work_pb2.PRESENCE_ABSENT
                await (self.remove(claim, generation) if absent else self.make(claim, generation))
                return self.release(claim, settled_generation=generation)
            except Changed:
                continue
            except Over:
                return
            except Failed as failed:
                try:
                    await self.report(claim, generation, failure=failed.failure)
                    return self.release(claim, retry_seconds=1)
                except Changed:
                    continue
                except (Over, Failed):
                    return

    async def make(self, claim, generation):
        """One machine carries the key of the request, and runs."""
        spec, cloud = claim.desired.spec, self.cloud()
        if spec.type_id not in TYPES:
            code = failure_pb2.FAILURE_CODE_INVALID_SPEC
            raise Failed(code, f"spec.type_id: there is no {spec.type_id}; take one of {', '.join(TYPES)}", False)
        machine = next(iter(cloud.find(spec.ownership_key)), None)
        if machine is None and claim.observed.presence == work_pb2.PRESENCE_PRESENT:
            await self.report(claim, generation, observed=work_pb2.Observed(presence=work_pb2.PRESENCE_ABSENT))
            raise Failed(failure_pb2.FAILURE_CODE_INTERNAL, "the machine is gone", False)
        if machine is None and claim.observed.create_in_doubt:
            await asyncio.sleep(EFFECT_SECONDS)
            machine = next(iter(cloud.find(spec.ownership_key)), None)
        if machine is None:
            # From here on something may exist that no record knows: said before it is done.
            await self.report(claim, generation, observed=work_pb2.Observed(create_in_doubt=True))
            await self.may_act(claim, generation)
            machine_id = cloud.create(spec.name, spec.ownership_key, dict(spec.host.labels))
        else:
            machine_id = machine["id"]
        known = work_pb2.Observed(external_id=machine_id, create_in_doubt=False)
        await self.report(claim, generation, observed=known)
        while (machine := cloud.get(machine_id)) is not None and not is_running(machine):
            await asyncio.sleep(0.05)
            claim.check(generation)
        if machine is None:
            raise Failed(failure_pb2.FAILURE_CODE_INTERNAL, "the machine vanished while it was made", False)
        made = work_pb2.Observed(
            generation=generation,
            presence=work_pb2.PRESENCE_PRESENT,
            external_id=machine_id,
            power=work_pb2.POWER_STATE_ON,
            create_in_doubt=False,
        )
        await self.report(claim, generation, observed=made, completed=completed(claim))

    async def remove(self, claim, generation):
        """Nothing carries the key of the request."""
        key, cloud = claim.desired.spec.ownership_key, self.cloud()
        if claim.observed.create_in_doubt:
            await asyncio.sleep(EFFECT_SECONDS)
        await self.report(claim, generation, progress=work_pb2.Progress(step="delete", message="deleting the machine"))
        for machine in cloud.find(key):
            await self.may_act(claim, generation)
            cloud.remove(machine["id"])
        while len(cloud.find(key)) > 0:
            await asyncio.sleep(0.05)
            claim.check(generation)
        absent = work_pb2.Observed(
            generation=generation, presence=work_pb2.PRESENCE_ABSENT, create_in_doubt=False
        )
        await self.report(claim, generation, observed=absent, completed=completed(claim))

    async def may_act(self, claim, generation):
        """Waits until the lease is young enough for an effect: what a fence guards is the hub's records, and not the cloud."""
        while time.monotonic() - self.alive_at > self.lease_seconds * 2 / 3:
            await asyncio.sleep(0.05)
            claim.check(generation)
        claim.check(generation)

    def cloud(self):
        """The cloud, by the settings in use."""
        return Cloud(self.settings["config"]["directory"])

    # ── at regular times ──

    async def beat(self):
        """Gives signs of life, and knows when the lease is over."""
        while True:
            await asyncio.sleep(self.heartbeat_seconds * 0.7)
            if self.lease_seconds > 0 and time.monotonic() - self.alive_at > self.lease_seconds:
                for claim in list(self.claims.values()):
                    self.end_claim(claim.item.id, claim.fence)
            self.say_heartbeat()

    def say_heartbeat(self):
        """One sign of life."""
        session, sent_at = self.session, time.monotonic()

        def written():
            if session is self.session:
                self.alive_at = max(self.alive_at, sent_at)

        failure = self.settings_failure
        health = session_pb2.HEALTH_HEALTHY if failure is None else session_pb2.HEALTH_UNHEALTHY
        message = "" if failure is None else failure.message
        if session is not None and session.is_open:
            beat = session_pb2.Heartbeat(health=health, message=message, failure=failure)
            session.say(written, heartbeat=beat)

    async def look_around(self):
        """Tells what exists."""
        while True:
            session = self.session
            if self.settings is not None and session is not None and session.is_open:
                owned = [machine for machine in self.cloud().list() if machine["key"] != ""]
                resources = [
                    inventory_pb2.OwnedResource(
                        kind="server",
                        external_id=machine["id"],
                        ownership_key=machine["key"],
                        name=machine["name"],
                        power=work_pb2.POWER_STATE_ON,
                    )
                    for machine in owned
                ]
                listing_id = str(uuid.uuid4())
                for start in range(0, max(1, len(resources)), 500):
                    last = start + 500 >= len(resources)
                    part = inventory_pb2.Inventory(listing_id=listing_id, final=last, complete=last)
                    part.resources.extend(resources[start : start + 500])
                    session.say(inventory=part)
            await asyncio.sleep(LIST_SECONDS * random.uniform(0.9, 1.1))


def completed(claim):
    """The operation that is complete; None where none was wished."""
    desired = claim.desired
    if desired.operation == work_pb2.OPERATION_UNSPECIFIED:
        return None
    return work_pb2.CompletedOperation(operation=desired.operation, operation_generation=desired.operation_generation)


async def main():
    """Runs until SIGTERM or SIGINT."""
    environment = os.environ
    provider = Provider(
        environment["SLIPWAY_GATEWAY"], environment["SLIPWAY_STATE_DIR"], environment.get("SLIPWAY_INSTANCE_NAME", "")
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, provider.stopping.set)
    await provider.run()


if __name__ == "__main__":
    asyncio.run(main())
