"""A simulation of routers, auth replicas and their database, in which the real rules of quotas run in no time."""
