"""gRPC plumbing: statuses, the interceptor that every server has, servers and channels."""
