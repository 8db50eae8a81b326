"""Errata of rows that the main paper's Table 3 quotes on KTH."""

import math

from stlight.config import ModelConfig
from stlight.model.baselines.simvp_incepu import SimVP
from stlight.model.complexity import complexity, count_flops, count_parameters
from stlight.registry.dataset_specs import DATASETS
from stlight.registry.model_specs import published
from tests.analysis.errata.support import shows
from tests.model.test_published_configurations import PRINTED

KTH = DATASETS["kth"].shape


@shows("kth_e3d_lstm_one_column_off")
def test_no_frames_have_the_printed_errors_of_e3d_lstm(found):
    pixels = KTH.height * KTH.width

    def highest_psnr(mae):
        # The squared error is at least that of equal differences at all pixels (Cauchy and Schwarz).
        return 10 * math.log10(pixels**2 / mae**2)

    assert 41 < highest_psnr(136.40) < 42 < 892.7
    # The benchmark's MSE, MAE and PSNR fit: a mean PSNR is at least that of the mean MSE.
    assert 892.7**2 / pixels < 136.40 < 892.7
    assert 10 * math.log10(pixels / 136.40) < 21.78 < highest_psnr(892.7)
    assert all(number in found["kth_e3d_lstm_one_column_off"].should for number in ("136.40", "892.7", "21.78", "below 42"))


@shows("kth_flops_of_half_the_prediction")
def test_recurrent_free_models_need_two_passes_on_kth(found):
    erratum = found["kth_flops_of_half_the_prediction"]
    for name in ("SimVP+IncepU", "TAU"):
        counted = complexity(ModelConfig(model=name), KTH, "kth")
        assert f"{counted['benchmark_flops'] / 1e9:.1f}G" == PRINTED[name]["kth"][1]
        assert PRINTED[name]["kth"][1] in erratum.says
        assert f"{counted['prediction_flops'] / 1e9:.1f}G" in erratum.should
        assert counted["prediction_flops"] > 1.98 * counted["benchmark_flops"]


@shows("kth_simvp_has_six_blocks")
def test_simvp_s_row_on_kth_is_of_six_blocks(found):
    arguments = published("SimVP+IncepU", "kth").arguments
    assert arguments["layers"] == 6
    four = SimVP(KTH, **{**arguments, "layers": 4})
    assert f"{count_parameters(four)['total'] / 1e6:.1f}M" == "8.6M"
    # A pass of half the frames; normalization, which the benchmark counts too, takes 0.4G.
    assert 47.5e9 < count_flops(four, KTH) / 2 < 48.3e9
    assert "8.6M" in found["kth_simvp_has_six_blocks"].should
