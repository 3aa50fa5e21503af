"""Work that outlives its request: images left here are predicted in the background, and their results are kept."""
