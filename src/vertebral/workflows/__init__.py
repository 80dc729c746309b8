"""Combines the stages to what a command does: run, batch, relabel, mesh, export, evaluate, benchmark."""
