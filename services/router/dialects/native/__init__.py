"""The documented native API: catalogue, text, images and edits."""
