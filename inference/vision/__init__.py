"""What is on an image: captions, objects with boxes, statements judged."""
