"""Types shared by all rooms: errors, anatomy, volumes, and the records passed between stages."""
