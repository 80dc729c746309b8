import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference

from vertebral.core.anatomy import LEVELS
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import ModelError, VertebralError
from vertebral.core.records import Evidence, Prepared
from vertebral.core.volume import Volume
from vertebral.models.config import InferenceConfig
from vertebral.models.devices import autocast, memory_format, place_network
from vertebral.models.mirrored import Mirrored
from vertebral.stages.inference import infer, top2

CPU = torch.device("cpu")
CONFIG = InferenceConfig(window=(16, 16, 16))
CONFIG_4_MM = PreprocessConfig(spacing_mm=4.0)


class RandomNetwork(torch.nn.Module):
    """Two convolutions, whose zero padding makes each window see its own edge, so that blending matters."""

    def __init__(self, class_count: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv3d(1, 8, 3, padding=1)
        self.last = torch.nn.Conv3d(8, class_count, 3, padding=1)
        torch.nn.init.normal_(self.last.weight, 0, 0.3)
        self.calls = 0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert not self.training
        return self.last(torch.tanh(10 * self.first(values)))  # type: ignore[no-any-return]


def random_image(shape: tuple[int, ...], config: PreprocessConfig | None = None) -> Prepared:
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    volume = Volume(array, np.eye(4))
    return Prepared(volume, volume.grid, config or PreprocessConfig())


def monai_probabilities(prepared: Prepared, network: torch.nn.Module, config: InferenceConfig) -> torch.Tensor:
    network.eval()
    with torch.inference_mode():
        return sliding_window_inference(
            torch.from_numpy(prepared.volume.array)[None, None],
            config.window,
            1,
            lambda values: torch.softmax(network(values), 1),
            overlap=config.overlap,
            mode="gaussian",
        )[0]


def dense(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    return evidence.first_probability / 255, evidence.second_probability / 255


# Sizes of 16 + 12 n, where MONAI's windows are evenly spread too; each axis is once the longest; the last is padded.
@pytest.mark.parametrize("shape", [(52, 28, 16), (28, 52, 28), (16, 28, 40), (11, 28, 40), (9, 10, 11)])
def test_agrees_with_monai(shape: tuple[int, int, int]) -> None:
    network, prepared = RandomNetwork(6), random_image(shape)
    evidence = infer(prepared, network, CONFIG, LEVELS[:5], CPU, precision="float32")
    theirs = monai_probabilities(prepared, network, CONFIG).topk(2, dim=0)
    first, second = theirs.indices.numpy()
    assert (evidence.first == first).mean() >= 0.999
    assert (evidence.second == second).mean() >= 0.999
    for ours, reference in zip(dense(evidence), theirs.values.numpy(), strict=True):
        assert np.abs(ours - reference).max() <= 0.5 / 255 + 1e-5
    assert evidence.first.dtype == evidence.first_probability.dtype == np.uint8
    assert evidence.grid.matches(prepared.volume.grid)
    assert evidence.levels == LEVELS[:5]


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_every_voxel_is_seen_whatever_the_size(overlap: float) -> None:
    """A network without context: the blend must give its own answer in every voxel."""
    network = torch.nn.Conv3d(1, 3, 1)
    torch.nn.init.normal_(network.weight, 0, 5)
    prepared = random_image((37, 20, 15))
    evidence = infer(prepared, network, InferenceConfig(window=(16, 13, 16), overlap=overlap), LEVELS[:2], CPU)
    with torch.inference_mode():
        reference = torch.softmax(network(torch.from_numpy(prepared.volume.array)[None, None]), 1)[0].max(0)
    assert (evidence.first == reference.indices.numpy()).mean() > 0.99
    assert np.abs(evidence.first_probability / 255 - reference.values.numpy()).max() < 0.02


def test_progress_reaches_one_and_only_grows() -> None:
    shares: list[float] = []
    infer(random_image((28, 28, 16)), RandomNetwork(2), CONFIG, LEVELS[:1], CPU, shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_air_is_background_and_the_body_is_as_without_skipping() -> None:
    prepared = random_image((16, 16, 64))
    array = prepared.volume.array.copy()
    array[:, :, 24:] = 0
    array += 0.005 * np.random.default_rng(1).random(array.shape).astype(np.float32)
    prepared = Prepared(Volume(array, np.eye(4)), prepared.source, prepared.config)
    network = RandomNetwork(4)
    evidence = infer(prepared, network, CONFIG, LEVELS[:3], CPU, precision="float32")
    assert network.calls == 2  # windows at 0 and 12; those at 24, 36 and 48 hold air
    theirs = monai_probabilities(prepared, network, CONFIG).max(0)
    body = np.s_[:, :, :24]
    assert (evidence.first[body] == theirs.indices.numpy()[body]).mean() >= 0.999
    assert np.abs(evidence.first_probability / 255 - theirs.values.numpy())[body].max() <= 0.5 / 255 + 1e-5
    assert (evidence.first[:, :, 28:] == 0).all()
    assert (evidence.first_probability[:, :, 28:] == 255).all()
    assert (evidence.second_probability[:, :, 28:] == 0).all()


def test_nothing_but_air() -> None:
    empty = Prepared(
        Volume(np.zeros((20, 20, 20), np.float32), np.eye(4)), random_image((2, 2, 2)).source, PreprocessConfig()
    )
    network = RandomNetwork(4)
    evidence = infer(empty, network, CONFIG, LEVELS[:3], CPU)
    assert network.calls == 0
    assert not evidence.first.any()
    assert (evidence.first_probability == 255).all()


class PaddingProbe(torch.nn.Module):
    lowest = 0.0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.lowest = float(values.min())
        return torch.zeros(1, 2, *values.shape[2:])


def test_padding_is_air_in_the_networks_own_scale() -> None:
    config = PreprocessConfig(window_hu=(-1000, 1000), scaling="zscore", mean_hu=200, std_hu=100)
    probe = PaddingProbe()
    infer(random_image((8, 8, 8), config), probe, CONFIG, LEVELS[:1], CPU)
    assert probe.lowest == -12


def test_top2_by_hand() -> None:
    scores = torch.tensor([[0.2, 0.0, 1.0], [0.5, 0.7, 0.0], [0.3, 0.3, 0.0]])
    first, second, first_score, second_score = top2(scores)
    assert first.tolist() == [1, 1, 0]
    assert second.tolist() == [2, 2, 1]
    assert first_score.tolist() == pytest.approx([0.5, 0.7, 1.0])
    assert second_score.tolist() == pytest.approx([0.3, 0.3, 0.0])


def test_bfloat16_gives_nearly_the_same() -> None:
    prepared = random_image((28, 28, 28))
    exact = infer(prepared, RandomNetwork(4), CONFIG, LEVELS[:3], CPU, precision="float32")
    rough = infer(prepared, RandomNetwork(4), CONFIG, LEVELS[:3], CPU, precision="bfloat16")
    assert (exact.first == rough.first).mean() > 0.97
    automatic = infer(prepared, RandomNetwork(4), CONFIG, LEVELS[:3], CPU)
    assert (exact.first == automatic.first).mean() > 0.97


def test_a_network_for_other_levels_is_refused() -> None:
    with pytest.raises(ModelError, match=r"\(1, 4, 16, 16, 16\).*\(1, 6, 16, 16, 16\)"):
        infer(random_image((16, 16, 16)), RandomNetwork(4), CONFIG, LEVELS[:5], CPU)
    with pytest.raises(ModelError, match="tuple"):
        infer(random_image((16, 16, 16)), Failing((torch.zeros(1),)), CONFIG, LEVELS[:1], CPU)


class Failing(torch.nn.Module):
    """Returns `output`, or raises it."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, values: torch.Tensor) -> object:
        if isinstance(self.output, Exception):
            raise self.output
        return self.output


def test_an_output_that_is_no_number_is_refused() -> None:
    output = torch.zeros(1, 2, 16, 16, 16)
    output[0, 1, 3, 4, 5] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        infer(random_image((16, 16, 16)), Failing(output), CONFIG, LEVELS[:1], CPU)


def test_out_of_memory_comes_with_advice() -> None:
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore lines")
    with pytest.raises(VertebralError, match=r"16x16x16.*smaller window.*cpu.*20 GiB\)"):
        infer(random_image((16, 16, 16)), Failing(error), CONFIG, LEVELS[:1], CPU)


class Pointing(torch.nn.Module):
    """Class 1 everywhere, and offsets of (0.5, -1, 10) units: 10, -20 and 200 mm."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        output = torch.zeros(1, 5, *values.shape[2:])
        output[:, 1] = 9.0
        output[:, 2:] = torch.tensor([0.5, -1.0, 10.0])[None, :, None, None, None]
        return output


def test_offsets_are_blended_in_mm_and_end_at_127() -> None:
    evidence = infer(random_image((40, 20, 16)), Pointing(), CONFIG, LEVELS[:1], CPU, offsets=True)
    assert (evidence.first == 1).all()
    assert evidence.offset_mm is not None and evidence.offset_mm.shape == (3, 40, 20, 16)
    assert [np.unique(axis).tolist() for axis in evidence.offset_mm] == [[10], [-20], [127]]


def test_offsets_that_were_not_asked_for_are_refused() -> None:
    with pytest.raises(ModelError, match="5"):
        infer(random_image((16, 16, 16)), Pointing(), CONFIG, LEVELS[:1], CPU)


@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_gets_half_precision_and_channels_last(
    supported: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[tuple[str, torch.dtype]] = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: chosen.append((kind, dtype)))
    autocast(torch.device("cuda"), "auto")
    assert chosen == [("cuda", expected)]
    assert memory_format(torch.device("cuda")) == torch.channels_last_3d


def test_a_network_goes_where_it_computes() -> None:
    network = RandomNetwork(3).train().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    place_network(network, CPU)
    assert not network.training and network.last.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert memory_format(CPU) == torch.contiguous_format


def test_following_the_spine_leaves_the_rest_as_background() -> None:
    """A network that calls bright voxels spine: what it says in windows that were seen is what all windows say."""

    class Bright(torch.nn.Module):
        calls = 0

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return torch.cat([0.5 - values, values - 0.5], 1) * 20

    array = np.full((64, 64, 40), 0.1, np.float32)
    array[29:35, 29:35] = 1
    array[2:4, 2:4, 2:4] = 1  # a stray, far away
    prepared = Prepared(Volume(array, np.diag([4.0, 4, 4, 1])), random_image((2, 2, 2)).source, CONFIG_4_MM)
    seen, everything = Bright(), Bright()
    fast = infer(prepared, seen, CONFIG, LEVELS[:1], CPU, follow=True)
    exact = infer(prepared, everything, CONFIG, LEVELS[:1], CPU)
    assert (seen.calls, everything.calls) == (3, 5 * 5 * 3)
    assert exact.first[2:4, 2:4, 2:4].all() and not fast.first[2:4, 2:4, 2:4].any()
    np.testing.assert_array_equal(fast.first[24:40, 24:40], exact.first[24:40, 24:40])
    assert (fast.first_probability[:10, :10] == 255).all()


def test_a_mirrored_network_gives_the_mean_of_both_sides() -> None:
    class Ramp(torch.nn.Module):
        """Class scores and R offset that grow along R, whatever it is shown."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            along_r = torch.arange(3.0)[None, None, :, None, None].expand(1, 1, 3, 1, 1)
            return torch.cat([image, along_r, along_r, along_r, along_r], 1)

    image = torch.tensor([5.0, 6, 10]).reshape(1, 1, 3, 1, 1)
    plain = Mirrored(Ramp(), offsets=False)(image)[0, :, :, 0, 0]
    offsets = Mirrored(Ramp(), offsets=True)(image)[0, :, :, 0, 0]
    assert plain.tolist() == [[5, 6, 10], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert offsets.tolist() == [[5, 6, 10], [1, 1, 1], [-1, 0, 1], [1, 1, 1], [1, 1, 1]]
