"""The Responses dialect: OpenAI's API for agents, `POST /v1/responses`, and what is stored of it."""
