"""The clients: which package, which program drives it, and what of the table of scenarios it can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tests.compat.client import CHAT, LOOPS, OWN, PLOTS, RESULTS, VENDORS, Client
from tests.compat.fakes import RESPONSES_MODEL
from tests.compat.plots import LOOP, TEXT, Plot, Step, Wanted, named


def _more(*, images: bool = False, embeddings: bool = False, scenarios: Sequence[str] = CHAT) -> dict[str, list[str]]:
    asked = {vendor: list(scenarios) for vendor in VENDORS}
    for vendor, each in asked.items():
        if images and vendor != "claude":
            each.append("images")
        if embeddings:
            each.append("embeddings")
    return asked


_EDIT: Final = Plot(
    text='I greet the world.\n\nhello.py\n```\nprint("hello, world")\n```\n', outcome='print("hello, world")\n'
)
_FINAL: Final = Plot(
    steps=(*LOOP, Step((Wanted("final_answer", {"answer": TEXT}),))),
    marks=RESULTS,
    reaches=len(LOOP),
    counted="Observation:",
)
_ALL_SAID: Final = Plot(steps=named(LOOP, "Tools-{}".format), marks=RESULTS, outcome="Let me look." + TEXT)
_CODE: Final = Plot(text=f"I know.\n<code>\nfinal_answer({TEXT!r})\n</code>", outcome=TEXT)
_NOTE: Final = "hello, world\n"
_WRITE: Final = "echo hello, world > note.txt"
_COUNT: Final = "wc -c note.txt"


def _agent(write: Wanted, read: Wanted, count: Wanted) -> Plot:
    """Return what has a coding agent write a note, read it twice at once and count its letters."""
    steps = (Step((write,), "I write."), Step((read, read)), Step((count,)))
    return Plot(steps=steps, text="I wrote the note.", outcome=_NOTE, marks=("", "hello, world", "hello, world", "13"))


_BROKEN: Final = "def greeting():\n    return 'hello, wrld'\n"
_MENDED: Final = _BROKEN.replace("wrld", "world")
_EDITED: Final = {"file_path": "greeting.py", "old_string": "wrld", "new_string": "world", "replace_all": False}
_MENDS: Final = Plot(
    steps=(
        Step((Wanted("Read", {"file_path": "greeting.py"}),), "I read."),
        Step((Wanted("Edit", _EDITED),)),
        Step((Wanted("Bash", {"command": "python3 test_greeting.py", "description": "Run the test"}),)),
    ),
    text="The test passes now.",
    outcome=_MENDED,
    marks=("hello, wrld", "", "1 test passed"),
)
"""What has a coding agent read a file, edit it, run its test and report."""

_SHELL_MENDS: Final = Plot(
    steps=(
        Step((Wanted("exec_command", {"cmd": "cat greeting.py"}),), "I read."),
        Step((Wanted("exec_command", {"cmd": "sed -i s/wrld/world/ greeting.py"}),)),
        Step((Wanted("exec_command", {"cmd": "python3 test_greeting.py"}),)),
    ),
    text="The test passes now.",
    outcome=_MENDED,
    marks=("hello, wrld", "", "1 test passed"),
)
"""Likewise, by commands alone."""

_SCRIPT_MENDS: Final = replace(
    _SHELL_MENDS,
    steps=tuple(
        Step((Wanted("exec", f"text(await tools.exec_command({call.arguments}));"),), step.text)
        for step in _SHELL_MENDS.steps
        for call in step.calls
    ),
)
"""Likewise, by scripts that run those commands."""

_SEEING: Final = (*CHAT, "picture")
_TYPED: Final = (*_SEEING, "structured-tool")

CLIENTS: Final = (
    Client(
        name="openai-python",
        lock="openai",
        program="openai_python.py",
        package="openai",
        dialect="openai",
        scenarios=_more(scenarios=_SEEING, images=True, embeddings=True),
        forgets=("tools-stream",),
    ),
    Client(
        name="google-genai-python",
        lock="google-genai",
        program="google_genai.py",
        package="google-genai",
        dialect="google",
        scenarios=_more(scenarios=_SEEING, images=True, embeddings=True),
    ),
    Client(
        name="pydantic-ai",
        lock="pydantic-ai",
        program="pydantic_ai_program.py",
        package="pydantic-ai-slim",
        dialect="openai",
        scenarios=_more(scenarios=_TYPED),
    ),
    Client(
        name="pydantic-ai (Google)",
        lock="pydantic-ai",
        program="pydantic_ai_program.py",
        package="pydantic-ai-slim",
        dialect="google",
        scenarios=_more(scenarios=_TYPED),
    ),
    Client(
        name="langchain",
        lock="langchain",
        program="langchain_program.py",
        package="langchain",
        dialect="openai",
        scenarios=_more(scenarios=_TYPED, embeddings=True),
        forgets=LOOPS,
    ),
    Client(
        name="langchain (Google)",
        lock="langchain",
        program="langchain_program.py",
        package="langchain",
        dialect="google",
        scenarios=_more(scenarios=_TYPED, embeddings=True),
    ),
    Client(
        name="openai-agents",
        lock="openai-agents",
        program="openai_agents.py",
        package="openai-agents",
        dialect="openai",
        forgets=LOOPS,
    ),
    Client(
        name="litellm",
        lock="litellm",
        program="litellm_program.py",
        package="litellm",
        dialect="openai",
        scenarios=_more(images=True, embeddings=True),
    ),
    Client(
        name="litellm (Google)",
        lock="litellm",
        program="litellm_program.py",
        package="litellm",
        dialect="google",
        forgets=LOOPS,
    ),
    Client(
        name="instructor",
        lock="instructor",
        program="instructor_program.py",
        package="instructor",
        dialect="openai",
        scenarios=_more(scenarios=("structured", "structured-tool", "structured-json", "refused")),
    ),
    Client(
        name="llama-index",
        lock="llama-index",
        program="llama_index_program.py",
        package="llama-index-core",
        dialect="openai",
        scenarios=_more(embeddings=True),
        forgets=LOOPS,
    ),
    Client(
        name="llama-index (Google)",
        lock="llama-index",
        program="llama_index_program.py",
        package="llama-index-core",
        dialect="google",
    ),
    *(
        Client(
            name=name,
            lock=lock,
            program=program,
            package=package,
            dialect="anthropic",
            # The fake of OpenAI counts for other models.
            scenarios={
                **_more(scenarios=asked),
                "openai": [each for each in asked if each != "count"],
                OWN: asked,
            },
        )
        for name, lock, program, package, asked in (
            ("anthropic-python", "anthropic", "anthropic_python.py", "anthropic", (*_TYPED, "count", "batch")),
            ("anthropic-js", "node-anthropic", "anthropic_node.mjs", "@anthropic-ai/sdk", _SEEING),
            (
                "langchain (Anthropic)",
                "langchain-anthropic",
                "langchain_anthropic_program.py",
                "langchain-anthropic",
                _TYPED,
            ),
            (
                "pydantic-ai (Anthropic)",
                "pydantic-ai-anthropic",
                "pydantic_ai_anthropic_program.py",
                "pydantic-ai-slim",
                tuple(each for each in _TYPED if each != "structured"),
            ),
            ("ai-sdk (Anthropic)", "node-ai-anthropic", "ai_sdk_anthropic.mjs", "@ai-sdk/anthropic", _SEEING),
        )
    ),
    *(
        Client(
            name=f"{name} (Responses)",
            lock=lock,
            program=program,
            package=package,
            dialect="responses",
            scenarios=_more(scenarios=scenarios),
            # It seals reasoning for models alone that it knows as OpenAI's.
            forgets=LOOPS if name == "pydantic-ai" else (),
            models={} if name == "pydantic-ai" else {"openai": RESPONSES_MODEL},
        )
        for name, lock, program, package, scenarios in (
            ("openai-python", "openai", "openai_responses.py", "openai", _SEEING),
            ("openai-node", "node-openai", "openai_responses_node.mjs", "openai", _SEEING),
            (
                "openai-agents",
                "openai-agents",
                "openai_agents.py",
                "openai-agents",
                (*CHAT, "tools-stored", "tools-session"),
            ),
            ("openai-agents-js", "node-openai-agents", "openai_agents_node.mjs", "@openai/agents", CHAT),
            ("ai-sdk", "node-ai", "ai_sdk.mjs", "ai", (*_SEEING, "tools-stored")),
            ("pydantic-ai", "pydantic-ai", "pydantic_ai_program.py", "pydantic-ai-slim", _TYPED),
            ("langchain", "langchain", "langchain_program.py", "langchain", _TYPED),
        )
    ),
    Client(
        name="codex",
        lock="node-codex",
        program="codex.mjs",
        package="@openai/codex-linux-x64",
        dialect="responses",
        scenarios=dict.fromkeys(VENDORS, ("agent",)),
        plots={"agent": _SHELL_MENDS},
        loops=("agent",),
        counts=False,
    ),
    Client(
        name="codex (GPT-6)",
        lock="node-codex",
        program="codex.mjs",
        package="@openai/codex-linux-x64",
        dialect="responses",
        # It offers one tool, of free text, in a namespace of an item.
        scenarios={"openai": ("agent",)},
        plots={"agent": _SCRIPT_MENDS},
        loops=(),
        counts=False,
        models={"openai": RESPONSES_MODEL},
    ),
    Client(
        name="claude-code",
        lock="node-claude-code",
        program="claude_code.mjs",
        package="@anthropic-ai/claude-code-linux-x64",
        dialect="anthropic",
        scenarios=dict.fromkeys((*VENDORS, OWN), ("agent",)),
        plots={"agent": _MENDS},
        loops=("agent",),
        counts=False,
    ),
    Client(
        name="replicate-python",
        lock="replicate",
        program="replicate_python.py",
        package="replicate",
        dialect="replicate",
        scenarios={"openai": ("images", "task"), "gemini": ("images", "task")},
    ),
    Client(
        name="openai-node",
        lock="node-openai",
        program="openai_node.mjs",
        package="openai",
        dialect="openai",
        scenarios=_more(scenarios=_SEEING, images=True, embeddings=True),
    ),
    Client(
        name="google-genai-js",
        lock="node-google-genai",
        program="google_genai_node.mjs",
        package="@google/genai",
        dialect="google",
        scenarios=_more(scenarios=_SEEING, images=True, embeddings=True),
    ),
    Client(
        name="ai-sdk (OpenAI)",
        lock="node-ai",
        program="ai_sdk.mjs",
        package="ai",
        dialect="openai",
        scenarios=_more(scenarios=_SEEING, embeddings=True),
        forgets=LOOPS,
    ),
    Client(
        name="ai-sdk (compatible)",
        lock="node-ai",
        program="ai_sdk.mjs",
        package="ai",
        dialect="compatible",
        scenarios=_more(scenarios=_SEEING, embeddings=True),
    ),
    Client(
        name="ai-sdk (Google)",
        lock="node-ai",
        program="ai_sdk.mjs",
        package="ai",
        dialect="google",
        scenarios=_more(scenarios=_SEEING, embeddings=True),
    ),
    Client(
        name="openai-agents-js",
        lock="node-openai-agents",
        program="openai_agents_node.mjs",
        package="@openai/agents",
        dialect="openai",
        forgets=LOOPS,
    ),
    Client(
        name="replicate-js",
        lock="node-replicate",
        program="replicate_node.mjs",
        package="replicate",
        dialect="replicate",
        scenarios={"openai": ("images", "task"), "gemini": ("images", "task")},
    ),
    Client(
        name="llm",
        lock="llm",
        program="llm_program.py",
        package="llm",
        dialect="openai",
        counts=False,
        plots=dict.fromkeys(LOOPS, replace(PLOTS["tools"], outcome="Let me look. " + TEXT)),
        forgets=LOOPS,
    ),
    Client(
        name="aider",
        lock="aider",
        program="aider_program.py",
        package="aider-chat",
        dialect="openai",
        scenarios=_more(scenarios=("edit", "edit-stream")),
        plots={"edit": _EDIT, "edit-stream": _EDIT},
    ),
    Client(
        name="smolagents",
        lock="smolagents",
        program="smolagents_program.py",
        package="smolagents",
        dialect="openai",
        scenarios=_more(scenarios=("tools", "tools-stream", "code", "refused")),
        plots={"tools": _FINAL, "tools-stream": _FINAL, "code": _CODE},
    ),
    Client(
        name="crewai",
        lock="crewai",
        program="crewai_program.py",
        package="crewai",
        dialect="openai",
        forgets=LOOPS,
    ),
    Client(
        name="autogen",
        lock="autogen",
        program="autogen_program.py",
        package="autogen-agentchat",
        dialect="openai",
        forgets=LOOPS,
    ),
    Client(
        name="semantic-kernel",
        lock="semantic-kernel",
        program="semantic_kernel_program.py",
        package="semantic-kernel",
        dialect="openai",
        plots={"tools": replace(_ALL_SAID, outcome=None), "tools-stream": _ALL_SAID},
        forgets=LOOPS,
    ),
    Client(
        name="open-webui",
        lock="",
        program="open_webui.py",
        package="open-webui",
        dialect="openai",
        scenarios=_more(scenarios=("plain", "stream", "tools-stream", "refused"), images=True, embeddings=True),
        forgets=LOOPS,
        replays="0.12.4",
    ),
    *(
        Client(
            name=name,
            lock=f"node-{name}",
            program="coding.mjs",
            package=package,
            dialect=dialect,
            scenarios=_more(scenarios=("agent",)),
            plots={"agent": _agent(write, read, also)},
            loops=("agent",),
            forgets=("agent",) if name == "continue" else (),
            counts=False,
            models=models,
        )
        for name, package, dialect, write, read, also, models in (
            (
                "opencode",
                "opencode-linux-x64",
                "openai",
                Wanted("bash", {"command": _WRITE, "description": "Write the note"}),
                Wanted("read", {"filePath": "note.txt"}),
                Wanted("bash", {"command": _COUNT, "description": "Count its letters"}),
                {},
            ),
            (
                "gemini-cli",
                "@google/gemini-cli",
                "google",
                Wanted("write_file", {"file_path": "note.txt", "content": _NOTE}),
                Wanted("read_file", {"file_path": "note.txt"}),
                Wanted("run_shell_command", {"command": _COUNT}),
                {},
            ),
            (
                "cline",
                "@cline/cli-linux-x64",
                "openai",
                Wanted("run_commands", {"commands": [_WRITE]}),
                Wanted("run_commands", {"commands": ["cat note.txt"]}),
                Wanted("run_commands", {"commands": [_COUNT]}),
                {},
            ),
            (
                "continue",
                "@continuedev/cli",
                "openai",
                Wanted("Write", {"filepath": "note.txt", "content": _NOTE}),
                Wanted("Read", {"filepath": "note.txt"}),
                Wanted("Bash", {"command": _COUNT}),
                {"openai": "gpt-4o-mini"},
            ),
        )
    ),
)
