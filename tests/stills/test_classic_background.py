"""Boxes, selection and classic planes against numbers of the classic program."""

from __future__ import annotations

import numpy as np
import pytest
from golden import load_golden

from bayesbragg.stills.boxes import BoxReason, BoxSettings, PanelLayout, centroid_boxes, padded_bounds, separate_boxes
from bayesbragg.stills.classic_background import background_pixels, classic_planes, is_outlier

N_RUNS = 9


@pytest.mark.parametrize("run", range(N_RUNS))
def test_golden_boxes_planes_and_selection(run: int) -> None:
    golden = load_golden("17_background")
    options, key = golden["meta"]["runs"][run], f"run{run}_"
    settings = BoxSettings(
        shoebox_size=options["shoebox"],
        pad_shoebox_for_background_estimation=options["pad"],
        fit_tilt=not options["use_robust_estimation"],
        fit_tilt_using_weights=options["weighted_fit"],
        skip_roi_with_negative_bg=options.get("skip_neg", True),
        force_negative_background_to_zero=options.get("neg_to_zero", False),
        allow_overlapping_spots=options.get("overlaps", False),
    )
    n_panels, n_slow, n_fast = golden["image_adu"].shape
    layout = PanelLayout.of_sizes([[n_fast, n_slow]] * n_panels)
    panel = golden["spot_panel"].astype(np.int64)
    size = layout.size[panel]
    bounds, cut = centroid_boxes(golden["spot_centroid_fast_slow"], size, settings.shoebox_size)
    if not settings.allow_overlapping_spots:
        bounds = separate_boxes(bounds, panel, layout)
    padded = padded_bounds(bounds, size, settings.pad)
    np.testing.assert_array_equal(bounds, golden[key + "roi_f1_f2_s1_s2"])
    np.testing.assert_array_equal(padded, golden[key + "padded_f1_f2_s1_s2"])

    gain = float(golden["gain_adu_per_photon"])
    planes = classic_planes(
        golden["image_adu"].reshape(-1),
        layout,
        panel,
        padded,
        settings,
        float(golden["sigma_r_adu"]) / gain,
        golden["background_mask"].reshape(-1) if options["mask"] else None,
        gain,
    )
    np.testing.assert_allclose(planes.tilt, golden[key + "tilt_abc"], rtol=0, atol=1e-10)
    stored = golden[key + "background_pixels_used"]
    for used, expected in zip(planes.used, stored, strict=True):
        np.testing.assert_array_equal(used, expected[: used.shape[0], : used.shape[1]])
        assert used.sum() == expected.sum()
    if settings.fit_tilt:
        known = np.all(np.isfinite(golden[key + "covariance"]), axis=(1, 2))
        np.testing.assert_allclose(planes.covariance[known], golden[key + "covariance"][known], rtol=1e-9, atol=1e-14)

    index, inside = layout.box_pixels(panel, bounds, (settings.shoebox_size,) * 2)
    selected = planes.reason == BoxReason.SELECTED
    if options["hotpix"]:
        selected &= ~np.any(golden["hotpix_mask"].reshape(-1)[index] & inside, axis=(1, 2))
    if options.get("reject_edge", False):
        selected &= ~cut
    selected &= (bounds[:, 1] - bounds[:, 0] >= 2) & (bounds[:, 3] - bounds[:, 2] >= 2)
    np.testing.assert_array_equal(selected, golden[key + "selected"])

    if key + "background" in golden:
        image = np.full(golden["image_adu"].shape, -1.0)
        for p, (f1, f2, s1, s2), (g1, _, t1, _), (a, b, c) in zip(panel, bounds, padded, planes.tilt, strict=True):
            s, f = np.mgrid[s1:s2, f1:f2]
            image[p, s1:s2, f1:f2] = a * (f - g1) + b * (s - t1) + c
        np.testing.assert_allclose(image, golden[key + "background"], rtol=0, atol=1e-10)


def test_the_low_count_defect_is_reproduced() -> None:
    """At 0.5 photons per pixel with readout noise the classic filter takes pixels with photons for outliers."""
    rng = np.random.default_rng(0)
    photons = rng.poisson(0.3, (32, 32)) + rng.normal(0, 3 / 28, (32, 32))
    kept = background_pixels(photons)
    assert not np.any(kept & (photons > 0.7))
    assert photons[kept].mean() < 0.1


def test_no_spread_means_no_outliers() -> None:
    assert not is_outlier(np.array([1.0, 1.0, 1.0, 9.0]), 3.5).any()
