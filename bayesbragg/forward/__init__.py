"""Expected photons per pixel: pure JAX functions of arrays (PHYSICS is the reference for every formula)."""
