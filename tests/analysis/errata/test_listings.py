"""The errata of the code listings, shown by running the lines that they quote."""

import re
import textwrap
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from stlight import STLight
from tests.analysis.errata.support import shows, with_text
from tests.experiments.test_published import FULL_TEXT

# Lines of the listings as the supplement's text has them. Its extraction from the PDF has shifted those of LOOP and LISTING_1,
# and lost a power in LAST_LAYER.
MIXER = "def STLMixer(dim, K_1, k_2):"
SECOND_CONV = '        nn.Conv2d(dim, dim, K_2, groups=dim, padding="same",\n            dilation=3),'
LAST_LAYER = "nn.Conv2d(dim // patch_size * 2,\n    out_layers, kernel_size=1)"
INITIALIZED = "self.patch_encoder.apply(self._init_weights)\nself.net.apply(self._init_weights)"
LOOP = """\
for i, block in enumerate(self.net):
    if i == len(self.net) // 3:
        x1 = x
        if i == 2 * len(self.net) // 3:
            x = x + x1
        x = block(x)"""
LISTING_1 = """\
def _init_weights(self, m):
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(
            m.weight,
            mode='fan_out',
            nonlinearity='relu'
        )
    if m.bias is not None:
        nn.init.constant_(m.bias, 0)"""

RIGHT_LOOP = LOOP[: LOOP.index("        if i == 2")] + textwrap.indent(
    textwrap.dedent(LOOP[LOOP.index("        if i == 2") :]), "    "
)
RIGHT_LISTING_1 = LISTING_1[: LISTING_1.index("    if m.bias")] + textwrap.indent(
    LISTING_1[LISTING_1.index("    if m.bias") :], "    "
)


def run(code, **names):
    names["nn"] = nn
    exec(code, names)
    return names


def listing(first, last, caption):
    """Lines of a listing by the numbers printed before them."""
    text = Path(FULL_TEXT).read_text()
    text = text[: text.index(caption)].rpartition("```")[0].rpartition("```")[2]
    lines = dict(re.findall(r"^(\d+)(?: (.*?))?\s*$", text, re.MULTILINE))
    return "\n".join(lines[str(number)] for number in range(first, last + 1))


@with_text
def test_the_lines_quoted_here_are_the_supplement_s():
    for lines, first in ((MIXER, 12), (SECOND_CONV, 17), (LAST_LAYER, 50), (INITIALIZED, 53), (LOOP, 61)):
        printed = listing(first, first + lines.count("\n"), "Figure 3. Full")
        printed = textwrap.dedent(printed).replace("self.patch_reassemble = ", "")
        assert printed == textwrap.dedent(lines), first
    assert listing(1, 9, "Listing 1. Code") == LISTING_1


@shows("listing_argument_names")
def test_listing_s_mixer_uses_a_name_that_it_does_not_define():
    code = f"{MIXER}\n    return nn.Sequential(\n{SECOND_CONV}\n    )"
    with pytest.raises(NameError, match="'K_2' is not defined"):
        run(code)["STLMixer"](4, 3, 7)
    mixer = run(code.replace("k_2", "K_2"))["STLMixer"](4, 3, 7)
    assert mixer[0].kernel_size == (7, 7)


@with_text
@shows("listing_without_init_weights")
def test_the_full_listing_lacks_a_method_and_corrected_is_our_model():
    code = listing(1, 69, "Figure 3. Full")
    loop = textwrap.indent(LOOP, 8 * " ")
    assert code.count(loop) == 1
    code = code.replace("k_2):", "K_2):").replace("patch_size * 2,", "patch_size**2,")
    code = code.replace(loop, textwrap.indent(RIGHT_LOOP, 8 * " "))
    arguments = {"in_layers": 6, "out_layers": 10, "dim": 16, "depth": 4, "patch_size": 2, "overlapping": 2, "K_1": 3, "K_2": 7}
    with pytest.raises(AttributeError, match="'STLight' object has no attribute '_init_weights'"):
        run(code)["STLight"](**arguments)
    theirs = run(f"{code}\n{textwrap.indent(RIGHT_LISTING_1, '    ')}")["STLight"](**arguments)
    ours = STLight(context_frames=3, horizon_frames=5, channels=2, hidden_dim=16, depth=4, overlap=2)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    clip = torch.rand(2, 3, 2, 8, 12)
    torch.testing.assert_close(ours(clip), theirs(clip), rtol=1e-4, atol=1e-5)


def test_what_figure_3_initializes_is_the_hybrid_scheme():
    def model(scheme):
        torch.manual_seed(0)
        return STLight(hidden_dim=8, depth=2, initialization=scheme)

    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

    def listed(with_last_layer):
        built = model("kaiming_uniform")
        parts = types.SimpleNamespace(patch_encoder=built.patch_encoder, net=built.mixers)
        parts._init_weights = types.MethodType(run(RIGHT_LISTING_1)["_init_weights"], parts)
        run(INITIALIZED, self=parts)
        if with_last_layer:
            built.patch_reassemble.apply(parts._init_weights)
        return built

    assert same(listed(False), model("hybrid"))
    assert not same(listed(False), model("kaiming_normal"))
    assert same(listed(True), model("kaiming_normal"))
