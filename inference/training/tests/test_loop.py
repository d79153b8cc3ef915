from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from inference.training import captions, denoiser, language_model
from inference.training.denoiser import Objective
from inference.training.loop import Recipe, Run, dice, fit, rate, rng
from inference.training.optimise import Muon, orthogonal
from inference.training.pictures import draw
from inference.training.tests.conftest import SHIPPED


def _pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        SHIPPED / "moa-tiny-image", dtype=torch.float32, local_files_only=True
    )


def test_orthogonal_gives_singular_values_near_one() -> None:
    """Five steps bring every singular value of a random matrix to within a third of one."""
    for shape in ((16, 40), (40, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=rng(0, 0))))
        assert values.min() > 0.67
        assert values.max() < 1.33


def test_the_rate_rises_and_falls() -> None:
    """The learning rate starts low, is whole after the warm-up and ends at 2%."""
    assert rate(0.0, 0, 100) == pytest.approx(0.01)
    assert rate(0.0, 100, 100) == 1.0
    assert rate(1.0, 1000, 100) == pytest.approx(0.02)


def test_a_step_lowers_the_denoisers_loss(run: Run) -> None:
    """One step on a batch lowers the loss of that batch, noise and times held fixed."""
    pipeline = denoiser.make_pipeline(0, _pipeline().tokenizer)
    modules = {"unet": pipeline.unet.train(), "text": pipeline.text_encoder.train()}
    dealt = dice(1)
    drawn = [draw(dealt) for _ in range(8)]
    clean = torch.randn(8, 4, 16, 16, generator=rng(1, 0))
    noise = torch.randn(8, 4, 16, 16, generator=rng(1, 1))
    tokens = captions.tokens(pipeline.tokenizer, [d.caption for d in drawn])
    objective = Objective(pipeline, clean, tokens, run)
    _lowers(lambda: objective.at(clean, tokens, torch.arange(50, 850, 100), noise), modules)


def test_a_step_lowers_the_language_models_loss() -> None:
    """One step on a batch of dialogues lowers the loss of that batch."""
    tokenizer = language_model.make_tokenizer(1, dialogues=150)
    torch.manual_seed(0)
    network = language_model.make_network(len(tokenizer))
    tokens, targets = language_model.Rows(tokenizer, rows=4, tokens=64).draw(dice(1))
    _lowers(lambda: network(input_ids=tokens, labels=targets).loss, {"network": network})


def _lowers(loss: Callable[[], Tensor], modules: dict[str, nn.Module]) -> None:
    named = [(name, p) for module in modules.values() for name, p in module.named_parameters()]
    optimizer = Muon(named, lr=1e-3)
    before = loss()
    before.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        assert loss() < before


def _small(run: Run, steps: int, die_at: int = -1) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int) -> Tensor:
        if step == die_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=rng(run.seed, step))
        out: Tensor = network(x)
        return (out[:, 0] - x.sum(dim=1)).pow(2).mean()

    fit(loss, {"network": network}, Recipe("small", steps, lr=1e-2, warmup=1), run)
    return network.state_dict()


def test_the_same_seed_gives_the_same_weights(run: Run) -> None:
    """Two runs of one seed end with equal bits; another seed does not."""
    one, two, other = (
        _small(replace(run, out=run.out / name, seed=seed), 20) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_run_ends_like_an_unbroken_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped after a checkpoint and started again ends with the bits of one that never was."""
    whole = _small(replace(run, out=run.out / "whole"), 30)
    monkeypatch.setattr("inference.training.loop.SAVE_EVERY_S", -1.0)  # a checkpoint after every step
    broken = replace(run, out=run.out / "broken")
    with pytest.raises(KeyboardInterrupt):
        _small(broken, 30, die_at=12)
    resumed = _small(broken, 30)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_ends_with_its_budget(run: Run) -> None:
    """A budget that is spent ends a run however many steps are left."""
    _small(replace(run, budget_s=0.05), 10**9)
