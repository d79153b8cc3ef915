"""Google: Gemini and Imagen."""
