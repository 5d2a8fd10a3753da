"""Image processing of stills: boxes and background planes."""
