"""Data sets of labelled CT in VerSe's layout: download, index, split and prepare."""
