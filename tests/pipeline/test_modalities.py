"""Into the autoencoder and out of it again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marigold_core.images.intrinsics import Layer
from marigold_core.pipeline.modalities import Depth, Intrinsics, Normals

pytestmark = pytest.mark.numeric


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(0, 50))
def test_depth_round_trip_is_affine(seed, scale, shift):
    depth = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(seed)) * scale + shift + 0.01
    valid = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(seed + 1)) > 0.2
    back = Depth().from_vae(Depth().to_vae(depth, valid))
    for one, got, mask in zip(depth, back, valid, strict=True):
        exact = one.double()
        near, far = torch.quantile(exact[mask], torch.tensor([0.02, 0.98]).double())
        expected = ((exact - near) / (far - near)).clamp(0, 1).float()
        rounding = torch.finfo(torch.float32).eps * (exact.max() / (far - near)).item()  # of depth far from 0
        torch.testing.assert_close(got[mask], expected[mask], atol=1e-5 + 4 * rounding, rtol=0)
        assert (got[~mask] == 1).all()  # invalid pixels go to the far plane


def test_a_root_curve_paints_near_depth_finer_and_is_read_back_as_depth():
    depth = torch.linspace(0, 1, 401).view(1, 1, 1, 401)
    root = Depth(transfer="root")
    picture = root.to_vae(depth, torch.ones_like(depth).bool())
    middle = picture[0, 0, 0, 200].item()
    assert middle == pytest.approx(2 * 0.5**0.5 - 1, abs=1e-4)  # half way to the far plane, seven tenths of the greys
    linear = Depth().from_vae(Depth().to_vae(depth, torch.ones_like(depth).bool()))
    torch.testing.assert_close(root.from_vae(picture), linear, atol=1e-5, rtol=0)
    beyond = torch.tensor([-1.2, 1.2]).view(1, 1, 1, 2).expand(-1, 3, -1, -1)
    below, above = root.read(beyond).flatten().tolist()
    assert below < 0 < 1 < above  # what a loss sees; a map ends at its planes
    assert root.from_vae(beyond).flatten().tolist() == [0, 1]


def test_depth_without_range_or_without_valid_pixels_is_far():
    depth = torch.full((2, 1, 4, 4), 3.0)
    valid = torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)]).bool()
    assert (Depth().to_vae(depth, valid) == 1).all()


def test_normals_round_trip_with_and_without_the_full_z_range():
    vectors = torch.nn.functional.normalize(torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    valid = torch.ones(2, 1, 6, 5).bool()
    torch.testing.assert_close(Normals().from_vae(Normals().to_vae(vectors, valid)), vectors)
    facing = torch.cat([vectors[:, :2], vectors[:, 2:].abs()], dim=1)
    half = Normals(full_z_range=False)
    picture = half.to_vae(facing, valid)
    assert picture[:, 2].min() >= -1 and picture[:, 2].max() > 0.9
    torch.testing.assert_close(half.from_vae(picture), facing)


def test_invalid_normals_face_the_viewer_and_resizing_keeps_unit_length():
    vectors = torch.zeros(1, 3, 4, 4)
    picture = Normals().to_vae(vectors, torch.zeros(1, 1, 4, 4).bool())
    assert torch.equal(picture[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    mixed = torch.nn.functional.normalize(torch.randn(1, 3, 4, 4), dim=1)
    assert torch.allclose(Normals().resize(mixed, (9, 13)).norm(dim=1), torch.tensor(1.0), atol=1e-5)


def test_layers_round_trip_through_the_pictures_that_hold_them():
    albedo, rough = Layer("albedo", 0, (0, 1, 2), "srgb"), Layer("roughness", 1, (1,), "linear")
    modality = Intrinsics((albedo, rough))
    values = torch.rand(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 1, 6, 5).bool()
    valid[:, :, 0] = False
    pictures = modality.to_vae(values, valid)
    assert modality.pictures == 2 and pictures.shape == (2, 6, 6, 5)
    torch.testing.assert_close(pictures[:, 4, 1:], values[:, 3, 1:] * 2 - 1)  # roughness is green in the second
    assert (pictures[:, (3, 5)] == -1).all() and (pictures[:, :, 0] == -1).all()
    torch.testing.assert_close(modality.from_vae(pictures)[:, :, 1:], values[:, :, 1:])
    assert modality.from_vae(pictures * 3).aminmax() == (0, 1)
    torch.testing.assert_close(modality.mirror(values).flip(-1), values)
    fused, spread = modality.fuse(torch.stack([values[0], values[0] + 0.3, values[0] + 0.1]))
    torch.testing.assert_close(fused[0], values[0] + 0.1)
    assert spread.shape == (1, 1, 6, 5) and spread.min() > 0


def test_claims_decide_how_members_are_fused():
    truth = torch.linspace(0.2, 0.8, 64).view(1, 1, 8, 8)
    members = torch.cat([truth, truth * 0.5 + 0.3, truth * 0.9])
    affine, spread = Depth("affine").fuse(members)
    torch.testing.assert_close(affine, (truth - 0.2) / 0.6, atol=1e-4, rtol=0)
    assert spread.max() < 1e-4
    absolute, _ = Depth("metric").fuse(members)
    torch.testing.assert_close(absolute, members.median(dim=0, keepdim=True).values)
    scaled, spread = Depth("scale").fuse(torch.cat([truth, truth * 2, truth * 0.5]))
    torch.testing.assert_close(scaled, truth / 0.8, atol=1e-4, rtol=0)
    assert spread.max() < 1e-4
