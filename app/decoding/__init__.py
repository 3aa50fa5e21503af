"""From bytes to pixels where it can be ended: what an image takes is known before it is decoded."""
