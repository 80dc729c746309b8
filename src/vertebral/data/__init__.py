"""Training data: catalogues, synthesis from label maps, patches, the procedural phantom and the public sample."""
