"""Networks, their weights and cards, and the backends that compute them."""
