"""The heads of image files: what is known of an image, and what decoding it takes, before anything is decoded."""
