"""LlamaIndex's agents, by OpenAI's chat API or Google's."""

from __future__ import annotations

import rig
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.google_genai import GoogleGenAI
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

TOOLS = [FunctionTool.from_defaults(rig.weather), FunctionTool.from_defaults(rig.now)]


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


def model(question, *, thinks: bool = False):
    if question.dialect == "google":
        from google.genai import types

        more = {}
        if thinks:
            thinking = types.ThinkingConfig(include_thoughts=True)
            more = {"generation_config": types.GenerateContentConfig(thinking_config=thinking)}
        return GoogleGenAI(
            model=question.model,
            api_key=question.key,
            http_options=types.HttpOptions(base_url=question.url),
            context_window=100_000,
            max_tokens=2000,
            max_retries=1,
            **more,
        )
    more = {"reasoning_effort": "medium", "additional_kwargs": {"reasoning_effort": "medium"}} if thinks else {}
    return OpenAILike(
        model=question.model,
        api_base=question.url + "/v1",
        api_key=question.key,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=False,
        max_retries=0,
        **more,
    )


def plain(question) -> str:
    return model(question).chat([ChatMessage(role="user", content=rig.MESSAGE)]).message.content


def stream(question) -> str:
    answer = model(question).stream_chat([ChatMessage(role="user", content=rig.MESSAGE)])
    return "".join(piece.delta or "" for piece in answer)


async def _ran(question, *, streaming: bool) -> str:
    agent = FunctionAgent(tools=TOOLS, llm=model(question, thinks=True), streaming=streaming)
    return str(await agent.run(rig.MESSAGE))


async def tools(question) -> str:
    return await _ran(question, streaming=False)


async def tools_stream(question) -> str:
    return await _ran(question, streaming=True)


def structured(question) -> dict:
    made = model(question).as_structured_llm(Weather)
    return made.chat([ChatMessage(role="user", content=rig.MESSAGE)]).raw.model_dump()


def embeddings(question) -> list:
    made = OpenAILikeEmbedding(model_name=question.model, api_base=question.url + "/v1", api_key=question.key)
    return [[len(each), each[0]] for each in made.get_text_embedding_batch(rig.TEXTS)]


def failure(error) -> int | None:
    while error is not None:
        for name in ("status_code", "code"):
            if isinstance(getattr(error, name, None), int):
                return getattr(error, name)
        error = error.__cause__
    return None


rig.serve(
    failure=failure,
    plain=plain,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    refused=plain,
    embeddings=embeddings,
)
