"""OpenAI's models at Azure."""
