"""Training patches, cut from real scans or painted."""
