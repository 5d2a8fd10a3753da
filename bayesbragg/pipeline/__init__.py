"""Files to fits and back: one still, or a run of many. The only room beside the command line that joins the others."""
