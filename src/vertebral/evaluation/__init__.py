"""Scores of label maps against references."""
