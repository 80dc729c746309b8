"""Scores of predicted label maps against reference label maps."""
