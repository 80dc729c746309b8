"""Training patches: cut from real scans, or painted from label maps."""
