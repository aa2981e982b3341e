"""Learning from human feedback: demonstrations, rankings, and reward from a model of them."""
