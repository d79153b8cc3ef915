"""OpenAI's Responses API, for models whose rows say `method: responses`: reasoning between calls is kept only there.

platform.openai.com/docs/api-reference/responses/create. Nothing is stored: what a model thought comes back sealed.
"""
