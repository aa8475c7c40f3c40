"""From rewards to a clean training signal: denoising rules, advantages, samples. Pure functions; no torch."""
