"""Write `docs/providers.md` from what the contract suites show: `python -m tests.providers`.

Each cell is the outcome of a test, run now. What a protocol or a model lacks is refused with the field's name, which
the suites show too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from services.catalogue import load
from tests.image.subjects import SUBJECTS as IMAGE_SUBJECTS
from tests.text.subjects import REASONS
from tests.text.subjects import SUBJECTS as TEXT_SUBJECTS

OUT = Path("docs/providers.md")
YES, REFUSED, NO = "yes", "–", "**FAILS**"
SUITES = {
    "text": ["contract", "contract_parts", "contract_failures", "contract_waits", "split", "listing"],
    "image": ["contract", "contract_failures", "contract_streams", "split", "memory"],
}
Columns = Sequence[tuple[str, str, str]]
"""Heading, test, and the ability without which the test shows a refusal."""

TEXT: Columns = (
    ("text, streamed and whole", "test_text", ""),
    ("images in", "test_image_in", ""),
    ("tools", "test_tools", ""),
    ("JSON schema", "test_json_schema", "json_schema"),
    ("reasoning apart", "test_reasoning_apart", ""),
    ("reasoning budget", "test_own_settings", "budget"),
    ("candidates", "test_candidates", "candidates"),
    ("log probabilities", "test_logprobs", "logprobs"),
    ("seed", "test_a_seed_is_sent_or_named", "seed"),
    ("usage", "test_usage", ""),
    ("tokens counted beforehand", "test_counting", "count"),
    ("models listed", "test_each_provider_lists_by_its_own_credentials", ""),
)
TEXT_FAILURES: Columns = (
    ("refusals typed", "test_refusals_are_typed", ""),
    ("retry time", "test_the_retry_time_is_passed_on", ""),
    ("leaver closes socket", "test_a_caller_who_leaves_closes_the_upstream_socket", ""),
    ("slow first token", "test_slow_first_token", ""),
    ("silence", "test_silence_between_pieces", ""),
    ("cut stream", "test_cut_stream", ""),
    ("failure inside", "test_failure_inside_the_stream", ""),
    ("malformed chunk", "test_malformed_chunk", ""),
    ("split at every byte", "test_every_byte_boundary", ""),
    ("upstream restart", "test_the_upstream_comes_back", ""),
)
IMAGE: Columns = (
    ("text to image", "test_one_image", ""),
    ("edit", "test_edit", "edit"),
    ("mask", "test_edit_with_mask", "mask"),
    ("variation", "test_other_operations", "variation"),
    ("outpaint", "test_other_operations", "outpaint"),
    ("remove background", "test_other_operations", "remove_background"),
    ("pixels", "test_sizes", "size"),
    ("ratio", "test_aspect_ratio", "aspect_ratio"),
    ("seed", "test_a_seed_is_sent_or_refused", "seed"),
    ("quality", "test_words_of_quality_and_style", "quality"),
    ("negative prompt", "test_words_of_quality_and_style", "negative_prompt"),
    ("colours", "test_words_of_quality_and_style", "colors"),
    ("previews", "test_previews", "preview"),
    ("token usage", "test_usage", ""),
)
IMAGE_FAILURES: Columns = (
    ("refusals typed", "test_refusals_are_typed", ""),
    ("withheld image", "test_a_withheld_image_is_a_content_policy_error", ""),
    ("retry time", "test_the_retry_time_is_passed_on", ""),
    ("leaver closes sockets", "test_a_caller_who_leaves_closes_the_upstream_sockets", ""),
    ("silence", "test_a_silent_provider_is_a_timeout", ""),
    ("half an answer", "test_half_an_answer_is_broken", ""),
    ("malformed answer", "test_a_malformed_answer_is_broken", ""),
    ("failure after some images", "test_a_failure_after_some_images_is_an_event", ""),
    ("upstream restart", "test_the_upstream_comes_back", ""),
    ("split at every byte", "test_every_byte_boundary", ""),
    ("12 MB, not doubled in memory", "test_a_large_image_is_not_doubled", ""),
    ("stream: leaver closes socket", "test_a_caller_who_leaves_a_stream_closes_the_upstream_socket", "preview"),
    ("stream: slow first picture", "test_slow_first_picture", "preview"),
    ("stream: silence", "test_silence_between_pictures", "preview"),
    ("stream: cut", "test_cut_stream", "preview"),
    ("stream: failure inside", "test_failure_inside_the_stream", "preview"),
    ("stream: malformed chunk", "test_malformed_chunk", "preview"),
    ("stream: split at every byte", "test_every_byte_boundary_of_a_stream", "preview"),
)


class Outcomes:
    """How each test fared, by its subject.

    Args:
        report: What pytest wrote, as JUnit XML.
        subjects: The subjects' names, one of which stands in each test's parameters.
    """

    def __init__(self, report: Path, subjects: Sequence[str]) -> None:
        self._found: dict[tuple[str, str], list[str]] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            name, _, parameters = case.attrib["name"].partition("[")
            bounded = f"-{parameters.removesuffix(']')}-"
            fits = [subject for subject in subjects if f"-{subject}-" in bounded]
            if fits:
                outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
                self._found.setdefault((max(fits, key=len), name), []).append(outcome)

    def cell(self, subject: str, test: str, can: bool) -> str:
        """Return what a test showed of a subject."""
        outcomes = set(self._found.get((subject, test), ["missing"] if can else ["skipped"]))
        if outcomes - {"passed", "skipped"}:
            return NO
        return YES if can and "passed" in outcomes else REFUSED


def table(outcomes: Outcomes, columns: Columns, lacks: dict[str, frozenset[str]]) -> str:
    """Return a table in Markdown: a row each ability, a column each provider."""
    names = list(lacks)
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for heading, test, ability in columns:
        cells = [outcomes.cell(name, test, ability not in lacks[name]) for name in names]
        lines.append(f"| {heading} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run(makes: str, subjects: Sequence[str]) -> Outcomes:
    """Run the suites of the adapters that make `makes`."""
    paths = [f"tests/{makes}/test_{suite}.py" for suite in SUITES[makes]]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", f"--junitxml={report}", *paths]
        subprocess.run(command, check=False)
        return Outcomes(report, subjects)


def document() -> str:
    """Run both suites and give the page."""
    catalogue = load(Path("gateway/catalogue.yaml"), {})
    text_lacks = {s.name: s.lacks for s in TEXT_SUBJECTS}
    abilities = frozenset(ability for _, _, ability in IMAGE if ability)
    image_lacks = {
        s.name: abilities - catalogue.find(s.model, provider=s.provider).capabilities for s in IMAGE_SUBJECTS
    }
    text = run("text", list(text_lacks))
    image = run("image", list(image_lacks))
    models = "\n".join(f"- {s.name}: `{s.provider}` with `{s.model}`" for s in IMAGE_SUBJECTS)
    unsaid = "\n".join(
        f"- {s.name} has no typed word for: {', '.join(sorted(set(REASONS) - set(s.reasons)))}; the status decides."
        for s in TEXT_SUBJECTS
        if set(s.reasons) != set(REASONS)
    )
    return f"""# Providers and what they can do

Written by `python -m tests.providers` from the contract suites' outcome; do not edit. Each adapter runs through the
real service against an emulator of its provider that checks requests as the provider does: signatures, types, fields,
enum values. The emulators of OpenAI, Azure OpenAI, Gemini, Imagen and Bedrock are proven by the official SDKs (Imagen's
by the SDK's other way to the same method: of the Gemini API it no longer offers it); Ideogram's and Stability's, whose
owners have no SDK for these endpoints, and Anthropic's follow their API references. No cloud was reached from here.

`{YES}`: shown. `{REFUSED}`: the protocol or the model cannot, and a request for it is refused with the field's name.

## Text

{table(text, TEXT, text_lacks)}

### When things go wrong

{table(text, TEXT_FAILURES, text_lacks)}

{unsaid}

## Images

{models}

{table(image, IMAGE, image_lacks)}

### When things go wrong

{table(image, IMAGE_FAILURES, image_lacks)}
"""


def main() -> None:
    """Write the page; fail when a cell fails."""
    page = document()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(page)
    print(f"written to {OUT}")
    sys.exit(1 if NO in page else 0)


if __name__ == "__main__":
    main()
