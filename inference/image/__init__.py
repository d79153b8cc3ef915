"""Images: a diffusion model behind one loop that puts a step of many requests into one denoiser call."""
