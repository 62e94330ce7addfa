"""Where packs run. Knows nothing of sweeps or trainers."""
