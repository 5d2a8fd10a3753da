"""bayesbragg: pixel models of serial-crystallography stills with honest error bars."""
