"""Classifiers on prompts, dense activations and SAE latents, and the judge that compares their scores."""
