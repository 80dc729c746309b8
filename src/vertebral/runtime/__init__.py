"""How the program runs: time, memory, hashes and processes. Nothing of the spine."""
