"""Files in and out: DIALS tables, images, structure factors, spectra, PHIL, tables of shots."""
