"""The benchmark of levels: real label maps, corrupted as models corrupt them, named again and scored."""
