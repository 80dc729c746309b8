"""Networks, their weights and cards, and the backends that run them."""
