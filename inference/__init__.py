"""Models of one's own on torch: text by transformers, images by diffusers."""
