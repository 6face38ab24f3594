import pytest
import torch
from torch import nn

from smoothnb.postcards.fit import fit, warmup_cosine
from smoothnb.postcards.muon import Muon, optimizers, orthogonalized


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 1))


def loss_of(model):
    def loss(generator, step):
        x = torch.rand(8, 1, 8, 8, generator=generator)
        return (model(x).squeeze(1) - x.mean((1, 2, 3))).square().mean()

    return loss


def run(model, checkpoint, steps, loss=None, **options):
    fit(
        model, loss or loss_of(model), steps=steps, optimizers=optimizers(model, 1e-2, 1e-2), warmup=5,
        checkpoint=checkpoint, save_every=10, **options,
    )  # fmt: skip


def test_training_lowers_the_loss(tmp_path):
    model = small_model()
    before = loss_of(model)(torch.Generator().manual_seed(1), 0).item()
    run(model, tmp_path / "c.pt", 200, ema_decay=0.9)
    assert loss_of(model)(torch.Generator().manual_seed(1), 0).item() < 0.1 * before


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path):
    unbroken = small_model()
    run(unbroken, tmp_path / "a.pt", 30)

    def stops_at(limit, model):
        def loss(generator, step):
            if step == limit:
                raise KeyboardInterrupt
            return loss_of(model)(generator, step)

        return loss

    broken = small_model()
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path / "b.pt", 30, loss=stops_at(17, broken))
    resumed = small_model()
    run(resumed, tmp_path / "b.pt", 30)
    for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    model = small_model()

    def loss(generator, step):
        return loss_of(model)(generator, step) * (float("nan") if step == 12 else 1)

    with pytest.raises(FloatingPointError, match=r"nan at step 12.*c\.pt.*lower learning rates"):
        run(model, tmp_path / "c.pt", 30, loss=loss)
    assert torch.load(tmp_path / "c.pt", weights_only=True)["step"] == 10


def test_on_save_sees_the_averaged_weights(tmp_path):
    model, seen = small_model(), {}
    run(model, tmp_path / "c.pt", 20, on_save=lambda step: seen.update({step: model[2].weight.detach().clone()}))
    assert sorted(seen) == [10, 20]
    assert torch.equal(seen[20], model[2].weight), "the model ends with the average that was last shown"
    live = torch.load(tmp_path / "c.pt", weights_only=True)["model"]["2.weight"]
    assert not torch.equal(live, seen[20])


def test_learning_rate_rises_then_falls_to_zero():
    rates = [warmup_cosine(step, 100, 10) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == 1 and rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_orthogonalized_levels_the_singular_values():
    torch.manual_seed(0)
    for shape in ((20, 50), (50, 20), (32, 32)):
        s = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
        assert 0.3 < s.min() and s.max() < 1.3
    a = torch.diag(torch.tensor([3.0, 1.0, 0.5]))
    assert orthogonalized(a).fill_diagonal_(0).abs().max() < 1e-5, "singular vectors stay"


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_takes_the_step_of_torch_s_own_on_matrices():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(24, 48, bias=False), nn.Linear(24, 48, bias=False)
    theirs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    a = Muon(ours.parameters(), lr=0.05, weight_decay=0.1)
    b = torch.optim.Muon(theirs.parameters(), lr=0.05, weight_decay=0.1, momentum=0.95)
    x = torch.randn(16, 24)
    for optimizer, layer in ((a, ours), (b, theirs)):
        for _ in range(3):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
    moved, expected = (w.detach() - start for w in (ours.weight, theirs.weight))
    # torch's iterates in bfloat16, ours in the weights' own precision.
    assert torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), 0) > 0.99
    assert (moved.norm() / expected.norm()).item() == pytest.approx(1, abs=0.05)


def test_outer_layers_and_vectors_go_to_adamw():
    model = nn.ModuleDict({"conv_in": nn.Conv2d(3, 8, 3), "body": nn.Conv2d(8, 8, 3)})
    muon, adamw = optimizers(model, 1e-3, 1e-2)
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(model["body"].weight)]
    assert len(adamw.param_groups[0]["params"]) == 3
