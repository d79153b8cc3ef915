"""The documented predictions API, in the shape that its public clients parse."""
