"""Does a classifier on SAE latents detect hate-speech prompts as well as a dense linear probe?"""
