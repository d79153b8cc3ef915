"""The dialects of tasks: each turns a documented body into an order, and a task into the documented object."""
