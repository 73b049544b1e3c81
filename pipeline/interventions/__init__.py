"""Interventions in the language model: tokens removed from its input, latents removed from its activations."""
