"""CT painted from label maps."""
