"""LangChain's agents, by OpenAI's Responses API, its chat API or Google's."""

from __future__ import annotations

import rig
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

TOOLS = [tool(rig.weather), tool(rig.now)]


class Weather(BaseModel):
    city: str
    degrees: int


def model(question, *, thinks: bool = False):
    if question.dialect == "google":
        more = {"include_thoughts": True} if thinks else {}
        return ChatGoogleGenerativeAI(
            model=question.model, api_key=question.key, base_url=question.url, max_retries=1, **more
        )
    by_responses = question.dialect == "responses"
    more = {"reasoning_effort": "medium"} if thinks else {}
    if thinks and by_responses:
        more = {"reasoning": {"effort": "medium", "summary": "auto"}}
    return ChatOpenAI(
        model=question.model,
        api_key=question.key,
        base_url=question.url + "/v1",
        max_retries=0,
        use_responses_api=by_responses,
        **more,
    )


def plain(question) -> str:
    return model(question).invoke(rig.MESSAGE).text


def picture(question) -> str:
    seen = {"type": "image", "base64": rig.PICTURE, "mime_type": "image/png"}
    content = [{"type": "text", "text": rig.MESSAGE}, seen]
    return model(question).invoke([{"role": "user", "content": content}]).text


def stream(question) -> str:
    return "".join(chunk.text for chunk in model(question).stream(rig.MESSAGE))


def tools(question) -> str:
    agent = create_agent(model(question, thinks=True), TOOLS)
    return agent.invoke({"messages": [("user", rig.MESSAGE)]})["messages"][-1].text


def tools_stream(question) -> str:
    agent = create_agent(model(question, thinks=True), TOOLS)
    state = {}
    for mode, piece in agent.stream({"messages": [("user", rig.MESSAGE)]}, stream_mode=["messages", "values"]):
        if mode == "values":
            state = piece
    return state["messages"][-1].text


def structured(question) -> dict:
    return model(question).with_structured_output(Weather, method="json_schema").invoke(rig.MESSAGE).model_dump()


def structured_tool(question) -> dict:
    return model(question).with_structured_output(Weather, method="function_calling").invoke(rig.MESSAGE).model_dump()


def embeddings(question) -> list:
    if question.dialect == "google":
        made = GoogleGenerativeAIEmbeddings(model=question.model, api_key=question.key, base_url=question.url)
    else:
        made = OpenAIEmbeddings(
            model=question.model, api_key=question.key, base_url=question.url + "/v1", check_embedding_ctx_length=False
        )
    return [[len(each), each[0]] for each in made.embed_documents(rig.TEXTS)]


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
    picture=picture,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    structured_tool=structured_tool,
    refused=plain,
    embeddings=embeddings,
)
