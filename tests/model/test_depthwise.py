import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stlight.kernels.plain import plain_operators
from stlight.model.depthwise import DepthwiseConv2d


@settings(max_examples=60, deadline=None)
@given(
    kernel_size=st.sampled_from([1, 3, 5, 7, 9, 11]),
    dilation=st.integers(1, 4),
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
)
def test_equals_pytorch_s_convolution_forward_and_backward(kernel_size, dilation, batch, channels, height, width):
    torch.manual_seed(0)
    convolution = DepthwiseConv2d(channels, kernel_size, dilation).double()
    x = torch.randn(batch, channels, height, width, dtype=torch.float64, requires_grad=True)
    ours = convolution(x)
    with plain_operators():
        plain = convolution(x)
    torch.testing.assert_close(ours, plain)
    leaves = (x, convolution.weight, convolution.bias)
    weights = torch.randn_like(plain)
    for ours_grad, plain_grad in zip(
        torch.autograd.grad((ours * weights).sum(), leaves), torch.autograd.grad((plain * weights).sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours_grad, plain_grad)


def test_state_dict_is_that_of_a_plain_convolution():
    plain = torch.nn.Conv2d(4, 4, 7, groups=4, dilation=3, padding="same")
    plain.load_state_dict(DepthwiseConv2d(4, 7, 3).state_dict())
