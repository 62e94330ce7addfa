"""How a pack of trials is trained. Needs torch and the standard library, nothing else."""
