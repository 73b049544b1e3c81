"""What the latents of a sparse autoencoder stand for: the prompts and tokens they are active on, and what they write.

from pipeline.latents.firing import Firing
from pipeline.latents.examples import examples

firing = Firing.of(ActivationStore(Path("acts"), "resid_post.18"), Sae.load(Path("sae")))
found = examples(firing, groups, np.full(firing.latents, 5))
"""
