"""The dialects: each turns a foreign JSON body into a contract's request, and the answer's events into its own form.

One package a dialect; all run the same operations (`services.router.domain.operations`).
"""
