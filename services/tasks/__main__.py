"""The task process: `serve` (the default: answers, and works unless it is told not to), `migrate`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from moa.task.v1 import webhook_service_pb2, webhook_service_pb2_grpc
from services.catalogue import CatalogueError, Environment, Watched, last_good_of, refresh_of
from services.common import logs, memory, metrics, settings
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.content_sealing import ContentSealer
from services.common.credential import credential_of
from services.common.dialects.registrations import registrations
from services.common.egress import Egress
from services.common.helper_process import HelperProcess
from services.common.migrations import bring_up_to_date
from services.common.rereading import rereading
from services.common.rpc.client import channel
from services.common.rpc.limited import limited
from services.common.rpc.server import Server, run
from services.common.rpc.tls import tls_of
from services.common.settings import secrets_in
from services.common.signing import Secrets
from services.common.store import identity_of, links_of, store_of
from services.quota_client import Admission, StoredKeys
from services.tasks import dialects
from services.tasks.adapters.batch_content import BatchContent
from services.tasks.adapters.batch_queue import BatchQueue
from services.tasks.adapters.batch_quota import BatchQuota
from services.tasks.adapters.batches import Batches
from services.tasks.adapters.database import Database, Listener, Notices
from services.tasks.adapters.files import Files
from services.tasks.adapters.outbox import Outbox
from services.tasks.adapters.provider_batches import ProviderBatches
from services.tasks.adapters.provider_client import ProviderClient
from services.tasks.adapters.queue import Queue
from services.tasks.adapters.quota import Quota
from services.tasks.adapters.sessions import Sessions
from services.tasks.adapters.tasks import Tasks
from services.tasks.adapters.upstream import Upstream
from services.tasks.dialects.parts import Batched, Parts, TaskRegistration
from services.tasks.keeper import Keeper
from services.tasks.migrate import SCHEMA, migrate
from services.tasks.operations import Operations
from services.tasks.settings import TaskSettings
from services.tasks.views import Views
from services.tasks.webhooks.deliverer import Deliverer
from services.tasks.webhooks.servicer import WebhookServicer
from services.tasks.worker.batches import BatchWorker
from services.tasks.worker.finishing import Finisher
from services.tasks.worker.provider_batches import ProviderBatchWorker
from services.tasks.worker.sealing import BadCertificate, Seal
from services.tasks.worker.work import Work
from services.tasks.worker.worker import Worker


class Process:
    """Everything of one process, wired.

    Raises CatalogueError when the catalogue is bad, BadCertificate when outputs cannot be signed.
    """

    def __init__(self, config: TaskSettings) -> None:
        token, seed = credential_of(config), config.service_token.get_secret_value()
        self.config = config
        environment, last_good = Environment(settings.providers_environment(config)), last_good_of(config, "tasks")
        self.watched = Watched(config.catalogue, environment, refresh=refresh_of(config), last_good=last_good)
        self.database = Database(
            config.database_url.get_secret_value(), size=8 + config.task_workers, pooled=config.is_pooled
        )
        self.notices = Notices()
        self.store = store_of(config)
        self.egress = Egress(config.egress_allow.split(","))
        self.tls = tls_of(config)
        auth = channel(config.auth_address, "auth", self.tls)
        self.admission = Admission(auth, service_token=token)
        self.provider_keys = StoredKeys(
            auth, service_token=token, environment=environment, values=False, changed=lambda _: self.watched.look()
        )
        self.quota = Quota(auth, self.database, catalogue=self.watched, service_token=token)
        self.tasks = Tasks(self.database, waiting=config.task_waiting_per_account)
        self.links = links_of(config)
        self.views = Views(self.links)
        self.secrets = Secrets(config.webhook_secret.get_secret_value() or seed)
        self.outbox = Outbox(self.database)
        self.sessions = Sessions(auth, service_token=token)
        router = channel(config.router_address, "router", self.tls)
        desk = channel(config.desk_address, "desk", self.tls)
        self.upstream = Upstream(router, desk, service_token=token, desk_fd=config.desk_fd)
        self.queue = Queue(
            self.database,
            per_account=config.task_per_account,
            lease_s=config.task_lease_s,
            attempts=config.task_attempts,
        )
        self.helper = HelperProcess()
        self.files = Files(self.database, self.store)
        secrets = secrets_in(config.batch_secrets) or [config.service_token.get_secret_value()]
        content = BatchContent(ContentSealer([secret.encode() for secret in secrets]))
        self.batches = Batches(self.database, content)
        self.server = _served(self, self._operations())
        self.keeper = Keeper(self.database, self.queue, self.quota, self.store, self.notices, keep_s=config.task_keep_s)
        self.deliverer = self._deliverer()
        self.worker = self._worker()
        batch_queue = BatchQueue(
            self.database, content, per_account=config.batch_per_account, lease_s=config.batch_lease_s
        )
        batched = _batched()
        asks = batched.asks(router, token)
        self.batch_worker = BatchWorker(
            batch_queue, asks, batched.render, self.notices, room=config.batch_workers, keep_s=config.batch_keep_s
        )
        self.provider_batch_worker = ProviderBatchWorker(
            ProviderBatches(self.database, content, lease_s=config.batch_lease_s),
            asks,
            ProviderClient(channel(config.text_address, "text", self.tls), service_token=token),
            BatchQuota(auth, self.watched, service_token=token, dialect=batched.dialect.name),
            self.notices,
            batched.render,
            hands_over=config.provider_batches,
        )

    def _operations(self) -> Operations:
        return Operations(
            tasks=self.tasks,
            admission=self.admission,
            quota=self.quota,
            catalogue=self.watched,
            notices=self.notices,
            views=self.views,
            targets=self.egress,
            deadline_s=self.config.task_deadline_s,
        )

    def _deliverer(self) -> Deliverer:
        return Deliverer(
            outbox=self.outbox,
            tasks=self.tasks,
            views=self.views,
            sender=self.egress,
            secrets=self.secrets,
            notices=self.notices,
            links=self.links,
            pauses_s=self.config.webhook_pauses_s,
            timeout_s=self.config.webhook_timeout_s,
        )

    def _worker(self) -> Worker:
        config = self.config
        finisher = Finisher(provenance=config.task_provenance, seal=_seal_of(config))
        return Worker(
            self.database,
            self.queue,
            Work(self.database, self.upstream, self.quota, self.store, finisher),
            self.notices,
            room=config.task_workers,
            attempts=config.task_attempts,
            retry_s=config.task_retry_s,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Serve and work until the block ends, then drain; yield the port."""
        await self.database.open()
        await self.admission.start()
        running: list[asyncio.Task[None]] = []
        try:
            port = await self.server.start(self.config.listen)
            running = [asyncio.create_task(duty) for duty in self._duties()]
            logs.get("tasks").info("tasks.started", port=port, worker=self.worker.name)
            try:
                yield port
            finally:
                await self.server.stop(self.config.drain_s)
                await self.helper.aclose()
        finally:
            await cancel_and_wait(*running, again_s=CLEANING_S)
            await self.admission.stop()
            await self.egress.aclose()
            await self.store.aclose()
            await self.database.close()

    def _duties(self) -> Iterable[Coroutine[Any, Any, None]]:
        yield Listener(self.config.session_url, self.notices, objects=identity_of(self.config)).run()
        yield self.watched.watch()
        yield self.provider_keys.run()
        yield self.keeper.run()
        yield self.files.run()
        if self.config.task_workers:
            yield self.worker.run()
            yield self.deliverer.run()
            if self.config.batch_workers:
                yield self.batch_worker.run()
            yield self.provider_batch_worker.run()


def _batched() -> Batched:
    """Return how requests of batches are asked and answered: in the one dialect that has batches."""
    (found,) = (each.batched for each in registrations(dialects, TaskRegistration) if each.batched is not None)
    return found


def _served(process: Process, operations: Operations) -> Server:
    server = Server(
        service_token=None,
        connection_age_s=process.config.connection_age_s,
        tls=process.tls,
        around=limited,
        helper=process.helper,
    )
    grpc = server.grpc
    parts = Parts(
        operations=operations,
        upstream=process.upstream,
        files=process.files,
        batches=process.batches,
        helper=process.helper,
        links=process.links,
        desk_model=process.config.desk_model,
        has_batches=lambda: process.watched.now.has_batches,
    )
    for each in registrations(dialects, TaskRegistration):
        each.serve(grpc, parts)
        server.offer(*each.services)
    webhooks = WebhookServicer(operations, process.sessions, process.outbox, process.secrets)
    webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server(rereading(webhooks), grpc)
    server.offer(webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"].full_name)
    return server


def _seal_of(config: TaskSettings) -> Seal | None:
    """Return what signs outputs. Raises BadCertificate."""
    if config.task_c2pa_cert is None and config.task_c2pa_key is None:
        return None
    if config.task_c2pa_cert is None or config.task_c2pa_key is None:
        raise BadCertificate("MOA_TASK_C2PA_CERT and MOA_TASK_C2PA_KEY go together")
    return Seal(config.task_c2pa_cert, config.task_c2pa_key, timestamp_url=config.task_c2pa_timestamp_url)


@asynccontextmanager
async def serve(config: TaskSettings) -> AsyncIterator[int]:
    """Bring the schema up to date; serve and work until the block ends, then drain; yield the port.

    Raises CatalogueError when the catalogue is bad, BadCertificate when outputs cannot be signed.
    """
    await bring_up_to_date(config.session_url, SCHEMA)
    metrics.serve(config)
    async with Process(config).running() as port:
        yield port


async def _run(config: TaskSettings, stop: asyncio.Event) -> None:
    memory.give_back_freed(heaps=2)
    try:
        async with serve(config):
            await stop.wait()
    except CatalogueError as error:
        raise SystemExit(f"bad setting MOA_CATALOGUE: {error}") from None
    except BadCertificate as error:
        raise SystemExit(f"MOA_TASK_C2PA_CERT: {error}") from None


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m services.tasks", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve moa.task.v1 and its dialects, and run tasks")
    commands.add_parser("migrate", help="bring the database's schema up to date")
    chosen = parser.parse_args(arguments)
    config = settings.read(TaskSettings)
    logs.configure("tasks", config.log_level)
    if chosen.command == "migrate":
        migrate(config.session_url)
    else:
        run(lambda stop: _run(config, stop), "tasks")


if __name__ == "__main__":
    main(sys.argv[1:])
