"""The network: one pass over a long stretch equals a pass over each kernel."""

import dataclasses

import pytest
import torch

from chirpwatch.errors import (
    GeometryError,
    ModelError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.baseline import (
    DenseResNet,
    SeedResNet,
)
from chirpwatch.train.networks.models import (
    MODELS,
    build_model,
    model_name,
)
from chirpwatch.train.networks.network import Network

GEOMETRY = Geometry()
STRIDES = 9


@pytest.fixture(scope="module")
def network() -> Network:
    """A network whose BatchNorms have statistics, so that folding them matters."""
    torch.manual_seed(1)
    network = Network(GEOMETRY)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(8):
        x = 2 * torch.randn(16, 2, GEOMETRY.kernel_size) + 0.3
        x[:8, :, 1000:1100] += torch.sin(torch.arange(100.0))
        (network(x)[8:].mean() - network(x)[:8].mean()).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def strain() -> torch.Tensor:
    size = GEOMETRY.kernel_size + (STRIDES - 1) * GEOMETRY.stride_size
    return torch.randn(3, 2, size, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_dense_scores_equal_those_of_each_kernel_alone(network, strain) -> None:
    windows = strain.unfold(-1, GEOMETRY.kernel_size, GEOMETRY.stride_size)
    dense, dense_peak = network.head(network.features(strain))
    assert dense.shape == dense_peak.shape == (3, STRIDES)
    for i in range(STRIDES):
        alone, peak = network.head(network.features(windows[:, :, i]))
        assert alone.shape == (3, 1)
        torch.testing.assert_close(alone[:, 0], dense[:, i], atol=1e-4, rtol=0)
        torch.testing.assert_close(peak[:, 0], dense_peak[:, i])


@torch.inference_mode()
def test_extra_samples_before_the_next_stride_change_nothing(network, strain) -> None:
    short = strain[..., : -GEOMETRY.stride_size + 1]
    assert network(short).shape == (3, STRIDES - 1)
    torch.testing.assert_close(network(short), network(strain)[:, :-1])


@torch.inference_mode()
def test_frames_shift_with_the_strain(network, strain) -> None:
    frames = network.features(strain)
    shifted = network.features(strain[..., GEOMETRY.frame_size :])
    torch.testing.assert_close(shifted, frames[..., 1:])


@pytest.mark.parametrize("frame", [0, 5])
def test_a_frame_depends_on_its_receptive_field_alone(network, strain, frame) -> None:
    x = strain[:1].clone().requires_grad_()
    features = network.features(x)
    features[0, 1, :, frame].square().sum().backward()
    start = frame * GEOMETRY.frame_size
    stop = start + network.frontend.receptive_field
    reached = x.grad[0, 1].nonzero().flatten()
    assert start <= reached.min() and reached.max() < stop
    # Most of the field is used; ReLU and max-pooling stop some gradients at its ends.
    assert reached.max() - reached.min() > 0.8 * network.frontend.receptive_field
    assert x.grad[0, 0].abs().sum() == 0, "another detector's strain was used"


@torch.inference_mode()
def test_fused_network_gives_the_same_scores(network, strain) -> None:
    fused = network.fused()
    kinds = {type(module).__name__ for module in fused.modules()}
    assert not any("BatchNorm" in kind for kind in kinds)
    torch.testing.assert_close(fused(strain), network(strain), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        fused.features(strain).sum(1).relu(),
        network.head.norm(network.features(strain).sum(1)).relu(),
        atol=1e-4,
        rtol=1e-4,
    )
    assert fused.fused()(strain).equal(fused(strain)), "fusing twice changed something"


@torch.inference_mode()
def test_rows_of_a_batch_do_not_affect_each_other(network, strain) -> None:
    together = network(strain)
    other = torch.cat([strain[:1], 100 * strain[1:]])
    torch.testing.assert_close(network(other)[0], together[0])
    torch.testing.assert_close(network(strain[:1])[0], together[0])


def test_every_weight_gets_a_gradient(strain) -> None:
    network = Network(GEOMETRY, width=8).train()
    score, salience = network.head.evaluate(network.features(strain).sum(1))
    (score.square().sum() + salience.square().sum()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


@torch.inference_mode()
def test_peak_is_a_frame_that_sees_a_burst(network) -> None:
    """With positive salience weights, the salience is largest where the power is."""
    torch.manual_seed(3)
    network = Network(GEOMETRY).eval()
    network.head.peak_logit.weight.abs_()
    x = torch.zeros(1, 2, GEOMETRY.kernel_size)
    x[..., 1200:1230] = 50 * torch.randn(30)
    _, peak = network.head(network.features(x))
    start = peak.item() * GEOMETRY.frame_size
    assert start <= 1230 and start + network.receptive_field >= 1200


def test_kernel_shorter_than_the_receptive_field_is_refused() -> None:
    with pytest.raises(GeometryError, match="receptive field of 1059"):
        Network(Geometry(kernel_length=0.25))


def test_frame_size_that_the_frontend_cannot_make_is_refused() -> None:
    with pytest.raises(GeometryError, match="power of two"):
        Network(Geometry(frame_size=4))


def test_seed_baseline_has_the_reference_size() -> None:
    baseline = SeedResNet(GEOMETRY).eval()
    parameters = sum(weight.numel() for weight in baseline.parameters())
    assert 4.6e6 < parameters < 4.85e6
    assert baseline.receptive_field == 595
    assert baseline(torch.zeros(2, 2, 2048)).shape == (2, 1)
    with pytest.raises(GeometryError, match="windows of 2048 samples, found 4096"):
        baseline(torch.zeros(2, 2, 4096))


@torch.inference_mode()
def test_dense_baseline_scores_a_kernel_alone_as_within_a_stretch() -> None:
    torch.manual_seed(4)
    dense = DenseResNet(GEOMETRY, width=16)
    dense(torch.randn(4, 2, 4096))  # gives the BatchNorms statistics
    dense.eval()
    strain = torch.randn(1, 2, 2048 + 5 * 256)
    together = dense(strain)
    assert together.shape == (1, 6)
    alone = [dense(strain[..., 256 * i : 256 * i + 2048]) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_built_by_name(name) -> None:
    # Matched filters do not fit into the other networks' kernel.
    length = 1.625 if name == "matched" else GEOMETRY.kernel_length
    geometry = dataclasses.replace(GEOMETRY, kernel_length=length)
    network = build_model(name, geometry, {"width": 16})
    assert model_name(network) == name
    again = build_model(name, geometry, network.hyperparameters)
    again.load_state_dict(network.state_dict())
    scores, _ = network.evaluate(torch.zeros(2, 2, geometry.kernel_size))
    assert scores.shape == (2, 1)


def test_unknown_models_and_hyperparameters_are_refused() -> None:
    with pytest.raises(ModelError, match="split, dense, seed, found 'rnn'"):
        build_model("rnn", GEOMETRY, {})
    with pytest.raises(ModelError, match=r"model dense: .*depth"):
        build_model("dense", GEOMETRY, {"depth": 3})
