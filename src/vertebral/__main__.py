"""`python -m vertebral`: the command line."""

from vertebral.cli import app

app(prog_name="vertebral")
