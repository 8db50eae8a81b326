"""A process that starts without torch's compiler trains as one that has it."""

import subprocess
import sys

import pytest
import torch

PROCESS = """
import sys
from stlight.runtime.process import leave_out_compiler
import torch
if {without}:
    leave_out_compiler()
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Linear(8, 8)
optimizer = torch.optim.Adam(model.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 8)).square().sum().backward()
    optimizer.step()
    schedule.step()
print("loads the compiler" if "torch._dynamo.convert_frame" in sys.modules else "does without")
print(model.weight.tolist())
"""


@pytest.fixture(scope="module")
def outputs():
    codes = [PROCESS.format(without=without) for without in (True, False)]
    ended = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False) for code in codes]
    assert [process.returncode for process in ended] == [0, 0], ended
    return [process.stdout.splitlines() for process in ended]


def test_the_compiler_is_left_out_and_the_weights_are_the_same(outputs):
    (first, *without), (second, *with_compiler) = outputs
    assert (first, second) == ("does without", "loads the compiler")
    assert without == with_compiler


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's kernels need Triton")
def test_a_cpu_does_not_load_triton():
    code = "import sys; from stlight.runtime.process import leave_out_compiler; leave_out_compiler()\n"
    code += "import stlight.training, stlight.model.complexity; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
