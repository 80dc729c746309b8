"""Benchmark of naming: label maps are corrupted as networks corrupt them, named again and scored."""
