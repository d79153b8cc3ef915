"""GGUF files by llama.cpp: the same contract as for every text model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from gguf import GGMLQuantizationType
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference.text.llama.model import LlamaModel
from inference.tokenizing import slices
from moa.text.v1 import text_pb2
from services.common import errors
from services.common.rpc.health import READY
from tests import waiting
from tests.inference.gguf_file import SHIPPED, written
from tests.inference.harness import Client, Running

STORY = "Tell me a story about a fox."
QUESTIONS = ["What is the capital of Korea?", "한국의 수도는 어디야?", STORY, "What is 3 plus 4?", "Hello"]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Seoul", "서울", "Paris"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["city", "count"],
    "additionalProperties": False,
}
CAPABILITIES = ["seed", "logprobs", "candidates", "json", "json_schema", "tools", "prefill"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the shipped model as GGUF files, in half precision and in eight and four bits."""
    folder = tmp_path_factory.mktemp("gguf")
    written(folder / "half" / "model.gguf")
    written(folder / "eight.gguf", GGMLQuantizationType.Q8_0)
    written(folder / "four.gguf", GGMLQuantizationType.Q4_1)
    (folder / "broken.gguf").write_bytes(b"GGUF\x03")
    written(folder / "two" / "one.gguf")
    written(folder / "two" / "other.gguf")
    return folder


@pytest.fixture(scope="module")
def served(files: Path) -> Iterator[Running]:
    """Serve them."""
    sources: dict[str, tuple[Path, dict[str, Any]]] = {
        "half": (files / "half", {}),
        "eight": (files / "eight.gguf", {}),
        "four": (files / "four.gguf", {"rows": 4}),
        "broken": (files / "broken.gguf", {}),
        "two": (files / "two", {}),
        "no-gguf": (SHIPPED.resolve(), {"engine": "llama"}),
        "no-safetensors": (files / "eight.gguf", {"engine": "torch"}),
        "no-gpu": (files / "eight.gguf", {"n_gpu_layers": 4}),
    }
    models = [
        {
            "id": name,
            "provider": "local-text",
            "context_tokens": 512,
            "capabilities": CAPABILITIES,
            "load": {"source": str(source), "options": options},
        }
        for name, (source, options) in sources.items()
    ]
    catalogue = files / "catalogue.yaml"
    providers = [{"id": "local-text", "adapter": "inference", "makes": "text"}]
    catalogue.write_text(json.dumps({"providers": providers, "models": models}))
    server = Running(catalogue)
    yield server
    server.stop()


async def test_the_file_says_what_the_safetensors_say(client: Client, served: Running) -> None:
    """Tokens, chat template and greedy answers are those of the model that the file was made from."""
    own = Client(served.address)
    for question in QUESTIONS:
        wanted, found = await client.text(question), await own.text(question, model="half")
        assert found.text == wanted.text
        assert found.usage is not None
        assert wanted.usage is not None
        assert found.usage.prompt_tokens == wanted.usage.prompt_tokens
        assert found.usage.completion_tokens == wanted.usage.completion_tokens
    await own.close()


def scored(seed: int) -> text_pb2.Sampling:
    return text_pb2.Sampling(temperature=1.2, top_p=0.95, seed=seed, logprobs=True, top_logprobs=2)


@pytest.mark.parametrize("name", ["half", "eight", "four"])
async def test_an_answer_has_the_same_bits_in_any_crowd(served: Running, name: str) -> None:
    """A seeded answer and its log probabilities are the same alone and among others, whatever the weights' format."""
    client = Client(served.address)

    def ask(seed: int) -> Any:
        return client.text(QUESTIONS[seed % 5], model=name, sampling=scored(seed), max_tokens=24)

    alone = [await ask(seed) for seed in (1, 2)]
    crowd = await asyncio.gather(*(ask(seed) for seed in range(10)))
    for one, same in zip(alone, crowd[1:3], strict=True):
        assert same.text == one.text
        assert [(p.token, p.logprob) for p in same.logprobs] == [(p.token, p.logprob) for p in one.logprobs]
    await client.close()


def turns(*said: str) -> list[text_pb2.Message]:
    roles = (text_pb2.ROLE_USER, text_pb2.ROLE_ASSISTANT)
    return [text_pb2.Message(role=roles[n % 2], parts=[text_pb2.Part(text=text)]) for n, text in enumerate(said)]


def account(name: str) -> tuple[tuple[str, str], ...]:
    return (("x-moa-account", name),)


async def drained(client: Client, name: str, said: list[text_pb2.Message], who: str) -> tuple[list[Any], int]:
    """Return an answer's scores and how many of its prompt's tokens were not read again."""
    scores: list[Any] = []
    cached = 0
    call = client.text_call(messages=said, model=name, sampling=scored(7), max_tokens=24, metadata=account(who))
    async for response in call:
        for event in response.events:
            scores += [(p.token, p.logprob) for p in event.text.logprobs]
            if event.HasField("finished"):
                cached = event.finished.usage.cached_tokens
    return scores, cached


async def test_a_second_turn_reads_only_what_is_new(served: Running) -> None:
    """A conversation's next turn keeps what was read of the first, to the bits of one that reads all of it; another
    account's same words keep nothing."""
    client = Client(served.address)
    first = turns("A fox and a crow met at a river. " * 8 + STORY)
    whole, nothing = await drained(client, "four", first, "alice")
    assert nothing == 0
    again, kept = await drained(client, "four", first, "alice")
    assert again == whole
    assert kept > 80
    second = turns(first[0].parts[0].text, "There was a fox.", "And then?")
    warm, kept_second = await drained(client, "four", second, "alice")
    assert kept_second > 80
    cold, kept_by_other = await drained(client, "four", second, "bob")
    assert kept_by_other == 0
    assert warm == cold
    await client.close()


async def test_a_beginning_that_a_busy_slot_holds_is_copied(served: Running) -> None:
    """Candidates of one prompt read it once: the others copy it, and say what each seed says alone."""
    client = Client(served.address)
    prompt = "A fox and a crow met at a river. " * 8
    sampling = text_pb2.Sampling(temperature=1.5, seed=3)
    out = await client.text(prompt, model="four", sampling=sampling, candidates=3, max_tokens=16)
    for number in range(3):
        one = text_pb2.Sampling(temperature=1.5, seed=3 + number)
        alone = await client.text(prompt, model="four", sampling=one, max_tokens=16)
        assert out.by_candidate[number] == alone.text
    await client.close()


async def test_an_answer_is_held_to_its_schema(served: Running) -> None:
    """At any temperature the answer is a document of the schema."""
    client = Client(served.address)
    form = text_pb2.ResponseFormat(kind=text_pb2.ResponseFormat.KIND_JSON_SCHEMA, schema_json=json.dumps(SCHEMA))
    for seed in range(4):
        sampling = text_pb2.Sampling(temperature=1.5, seed=seed)
        out = await client.text("Hello", model="half", sampling=sampling, response_format=form)
        assert set(json.loads(out.text)) == {"city", "count"}
    await client.close()


async def test_a_call_obeys_its_schema(served: Running) -> None:
    """Made to call a tool at a high temperature, the model calls it with arguments of its schema."""
    client = Client(served.address)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"city": {"enum": ["Seoul", "서울"]}},
        "required": ["city"],
    }
    schema["additionalProperties"] = False
    tool = text_pb2.Tool(name="travel", parameters_json=json.dumps(schema))
    required = text_pb2.ToolChoice(mode=text_pb2.ToolChoice.MODE_REQUIRED)
    sampling = text_pb2.Sampling(temperature=1.5, seed=2)
    name, arguments = "", ""
    async for response in client.text_call(
        "Hello", model="half", tools=[tool], tool_choice=required, sampling=sampling
    ):
        for event in response.events:
            name += event.tool_call.name
            arguments += event.tool_call.arguments_json
    assert name == "travel"
    assert json.loads(arguments)["city"] in ("Seoul", "서울")
    await client.close()


async def test_an_answer_goes_on_from_its_beginning(served: Running) -> None:
    """Given an answer's first words as the assistant's, llama.cpp says the rest too."""
    client = Client(served.address)
    whole = (await client.text(STORY, model="half")).text
    cut = whole.index(" ", len(whole) // 2)
    assert (await client.text(messages=turns(STORY, whole[:cut]), model="half")).text == whole[cut:]
    await client.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken", "cannot load"),
        ("two", "several GGUF"),
        ("no-gguf", "reads GGUF"),
        ("no-safetensors", "torch safetensors"),
        ("no-gpu", "needs a GPU"),
    ],
)
async def test_what_cannot_be_loaded_is_told(served: Running, name: str, told: str) -> None:
    """A broken file, a folder of several, and an engine without its file are refused in words."""
    client = Client(served.address)
    with pytest.raises(errors.ModelMisconfigured, match=told):
        await client.text("Hello", model=name)
    await client.close()


async def test_a_warm_row_is_loaded_at_the_start(files: Path, tmp_path: Path) -> None:
    """A row that says so is in memory before anybody asks, and answers. A process is ready once what it is told to load
    is loaded, or cannot be."""
    load = {"source": str(files / "four.gguf"), "warm": True}
    other = {"source": str(files / "eight.gguf")}
    models = [
        {"id": name, "provider": "local-text", "context_tokens": 512, "load": how}
        for name, how in (("warm", load), ("cold", other))
    ]
    providers = [{"id": "local-text", "adapter": "inference", "makes": "text"}]
    (tmp_path / "catalogue.yaml").write_text(json.dumps({"providers": providers, "models": models}))
    server = Running(tmp_path / "catalogue.yaml", preload="warm, unknown")
    async with grpc.aio.insecure_channel(server.address) as channel:
        ready = health_pb2.HealthCheckRequest(service=READY)
        pauses = waiting.pauses()
        while (await health_pb2_grpc.HealthStub(channel).Check(ready)).status != health_pb2.HealthCheckResponse.SERVING:
            await asyncio.sleep(next(pauses))
    assert server.process.registry.loaded() == ["warm"]
    client = Client(server.address)
    assert (await client.text("Hello", model="warm")).text
    await client.close()
    server.stop()


def test_tokens_are_those_of_the_tokenizer_that_was_written(files: Path) -> None:
    """llama.cpp parts odd text as the model's own tokenizer does, and writes it back."""
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(SHIPPED)
    model = LlamaModel(files / "half" / "model.gguf", name="half", context=0, revision="", threads=1)
    for text in ("안녕하세요! 1234", "🦊👩‍👩‍👧 \u0000\u202e <|end|> ﷽", "  two  spaces\n\n", "", "<|user|>x<|end|>"):
        tokens = model.tokens(text)
        assert tokens == own(text, add_special_tokens=False)["input_ids"]
        assert model.decode(tokens) == own.decode(tokens, skip_special_tokens=True)
    # In slices too.
    long = "Hello there, 안녕하세요! 1234 <|end|>\n\nIt's é🦊 and  more. " * 700
    pieces = list(slices(long, model.tokens))
    assert len(pieces) > 3
    assert [token for piece in pieces for token in model.tokens(piece)] == model.tokens(long)
