"""Models that were described elsewhere, in any JSON: what of it means what here, why, and what is left."""
