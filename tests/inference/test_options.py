"""What rows of models of one's own may say to their engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference import kinds, options
from services.catalogue import CatalogueError, load

ROW = "- {{id: m, provider: p, load: {{source: x, options: {{{}}}}}}}"


def written(path: Path, makes: str, text: str) -> Path:
    """Write a catalogue of one model with such options."""
    file = path / "catalogue.yaml"
    file.write_text(f"providers:\n- {{id: p, adapter: inference, makes: {makes}}}\nmodels:\n{ROW.format(text)}\n")
    return file


@pytest.mark.parametrize(
    ("makes", "text", "told"),
    [
        ("text", "row: 4", "load.options: Object contains unknown field `row`; did you mean 'rows'?"),
        ("text", "rows: 0", "load.options.rows: Expected `int` >= 1"),
        ("text", "engine: lama", "load.options.engine: Invalid enum value 'lama'; did you mean 'llama'?"),
        ("image", "long_prompts: cuts", "load.options.long_prompts: Invalid enum value 'cuts'; did you mean 'cut'?"),
        (
            "image",
            "compile: {mod: x}",
            "load.options.compile: Object contains unknown field `mod`; did you mean",
        ),
        ("image", "warm: [[512]]", "load.options.warm: Expected `array` of length 2, got 1"),
        ("embedding", "batch_token: 4", "load.options: Object contains unknown field `batch_token`; did you mean"),
        ("vision", "threshold: 2", "load.options.threshold: Expected `float` <= 1.0"),
    ],
)
def test_an_option_that_is_not_known_fails_when_the_file_is_read(
    tmp_path: Path, makes: str, text: str, told: str
) -> None:
    """The file, the row, the field, what is wrong, and what was probably meant."""
    file = written(tmp_path, makes, text)
    with pytest.raises(CatalogueError) as refused:
        load(file, check=kinds.fault_in)
    assert str(refused.value).startswith(f"{file}: model m: {told}")


def test_the_shipped_catalogue_has_known_options() -> None:
    """Its rows, and the defaults of what they leave out."""
    catalogue = load(Path("gateway/catalogue.yaml"), check=kinds.fault_in)
    assert options.of(catalogue.find("smollm2-135m"), options.TextOptions).rows == 4
    image = options.of(catalogue.find("moa-tiny-image"), options.ImageOptions)
    assert (image.long_prompts, sorted(image.loras), image.max_waiting) == ("cut", ["framed", "moa"], 64)
