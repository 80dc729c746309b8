"""What a command does with the stages."""
