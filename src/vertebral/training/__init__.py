"""The engine that makes the weights."""
