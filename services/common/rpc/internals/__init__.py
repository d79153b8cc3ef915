"""What services replace inside grpcio, and why: `grpc.aio` has no public way to any of it.

- `batch`: a whole answer's headers, message and status are one operation of gRPC's, not three.
- `accept`: a server waits for its next call without `asyncio.wait`.
- `wakeup`: gRPC's thread wakes the loop by a pipe that is read empty, not by a pair of sockets.

Each saves CPU and changes nothing that a caller sees (docs/performance.md has the figures). They are for the release
that `library.CHECKED` names. With another, or where a name is absent, nothing is replaced: calls go gRPC's own way, and
one line of the log says so. After an upgrade of grpcio, set `CHECKED` and run tests/common/test_rpc_internals.py: it
fails for each replacement that has no effect any more.
"""
