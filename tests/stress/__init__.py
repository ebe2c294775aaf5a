"""Long, seeded runs; each prints its seed, and takes one from the environment variable SEED."""
