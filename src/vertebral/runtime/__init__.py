"""How the program runs: stage timer, memory, hashing, worker processes. Knows nothing about the spine."""
