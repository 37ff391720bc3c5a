"""The chunked loss and its gradients equal those of plain cross entropy; prediction layers learn as V3 defines."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.models.mtp import predict_layer
from deepseek.training import loss as loss_module
from deepseek.training.loss import Loss, head_loss, language_model_loss, plain_head_loss
from model_cases import CASES
from model_reference import randomise, relative_difference

MTP = replace(CASES["v3"], num_nextn_predict_layers=2)
TOKENS = torch.randint(0, 67, (3, 12), generator=torch.Generator().manual_seed(0))


def random_model(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Model:
    model = Model(config)
    randomise(model, 0)
    return model.to(dtype)


def plain_loss(model: Model, tokens: Tensor, mtp_weight: float) -> Loss:
    """Slow twin: V3 section 2.2 written out, with whole logits."""
    hidden = model(tokens[:, :-1]).last_hidden_btm
    main = F.cross_entropy(model.head(hidden).flatten(0, 1), tokens[:, 1:].flatten())
    losses = []
    for k in range(1, model.config.num_nextn_predict_layers + 1):
        last = tokens.shape[1] - 1 - k
        hidden = predict_layer(model, model.config.num_hidden_layers + k - 1, hidden[:, :last], tokens[:, k : k + last])
        each = [
            -model.head(hidden[row, i]).log_softmax(-1)[tokens[row, i + k + 1]]
            for row in range(len(tokens))
            for i in range(last)
        ]
        losses.append(torch.stack(each).mean())
    mtp = sum(losses) / len(losses)
    return Loss(main + mtp_weight * mtp, main, mtp)


def gradients(model: Model, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("chunk", [1, 67 * 5, 1 << 20])
@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_gradients_equal_the_plain_ones(monkeypatch: pytest.MonkeyPatch, chunk: int, tied: bool) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", chunk)
    model = random_model(replace(MTP, tie_word_embeddings=tied))
    fast, slow = language_model_loss(model, TOKENS, mtp_weight=0.3), plain_loss(model, TOKENS, 0.3)
    torch.testing.assert_close(torch.stack(fast), torch.stack(slow), rtol=1e-6, atol=0)
    found, expected = gradients(model, fast.total), gradients(model, slow.total)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_difference(found[name], gradient) < 1e-5, name


def test_gradients_follow_what_multiplies_the_loss() -> None:
    model = random_model(CASES["llama"])
    once = gradients(model, language_model_loss(model, TOKENS).total)
    tenfold = gradients(model, 10 * language_model_loss(model, TOKENS).total)
    torch.testing.assert_close(tenfold["lm_head.weight"], 10 * once["lm_head.weight"])


def test_without_weight_the_prediction_layers_do_not_run() -> None:
    model = random_model(MTP)
    loss = language_model_loss(model, TOKENS)
    assert loss.mtp == 0
    assert not any("layers.3." in name for name in gradients(model, loss.total))


def test_evaluation_computes_no_gradients() -> None:
    model = random_model(CASES["llama"])
    with torch.no_grad():
        loss = language_model_loss(model, TOKENS)
    assert not loss.total.requires_grad
    torch.testing.assert_close(loss.main, language_model_loss(model, TOKENS).main)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = random_model(CASES["llama"])
    hidden, targets = torch.randn(2, 400, 32), torch.randint(0, 67, (2, 400))
    exact = hidden.clone().requires_grad_()
    plain_head_loss(model, exact, targets).backward()
    expected = model.lm_head.weight.grad.clone()
    model.to(dtype).zero_grad()
    rough = hidden.to(dtype).requires_grad_()
    head_loss(model, rough, targets).backward()
    for found, right in ((rough.grad, exact.grad), (model.lm_head.weight.grad, expected)):
        assert found.dtype == dtype
        assert (found.float() - right).norm() < 0.02 * right.norm()


def test_no_tensor_of_all_logits_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 67 * 8)
    sizes = []
    plain = F.linear

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        sizes.append(x.numel() // 32 if weight.shape[0] == 67 else 0)
        return plain(x, weight, bias)

    monkeypatch.setattr(loss_module.F, "linear", watched)
    language_model_loss(random_model(CASES["llama"]), TOKENS)
    assert max(sizes) == 8


def test_refusals_name_the_mend() -> None:
    with pytest.raises(ConfigError, match="num_nextn_predict_layers"):
        language_model_loss(random_model(CASES["v3"]), TOKENS, mtp_weight=0.1)
    with pytest.raises(ConfigError, match="at least 4"):
        language_model_loss(random_model(MTP), TOKENS[:, :3], mtp_weight=0.1)


def test_the_logits_alone_give_mtp_layers_no_gradient() -> None:
    """As docs/training.md says of a plain loop."""
    model = random_model(MTP)
    logits = model(TOKENS[:, :-1]).logits
    found = gradients(model, F.cross_entropy(logits.flatten(0, 1), TOKENS[:, 1:].flatten()))
    mtp = tuple(f"model.layers.{MTP.num_hidden_layers + k}." for k in range(MTP.num_nextn_predict_layers))
    assert any(name.startswith(mtp) for name, _ in model.named_parameters())
    assert found
    assert not [name for name in found if name.startswith(mtp)]
