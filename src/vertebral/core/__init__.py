"""What everybody speaks in: errors, anatomy, volumes, and the records that stages hand over."""
