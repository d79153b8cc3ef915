"""Moa's services: one process each, that meet only over gRPC."""

import os

# Calls to other services are read by the thread that waits for what has ended, as before grpc/grpc#41432, and
# not by four that hand each message on: a message of a stream costs its reader a third less (docs/performance.md).
# gRPC reads this when it is imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
