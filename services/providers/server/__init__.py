"""Servers of one's own that speak OpenAI's protocol, and tell what they have in words of their own.

vLLM, SGLang, Ollama, llama.cpp, TGI, LM Studio, vLLM-Omni, SGLang's image servers, and others that list models.
"""
