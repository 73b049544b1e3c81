"""Interventions in the language model: tokens removed from its input, and latents removed from its activations."""
