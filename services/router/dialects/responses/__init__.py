"""The Responses dialect: OpenAI's API for agents, `POST /v1/responses`. Nothing of an answer is kept."""
