"""A minimal stand-in for the part of OpenSTL that the exported files use, in the styles of both of its versions."""

import textwrap

_FILES = {
    "__init__.py": "",
    "models/__init__.py": "",
    "utils.py": """
        import argparse, runpy

        def create_parser():
            parser = argparse.ArgumentParser()
            parser.add_argument("--config_file", "-c")
            parser.add_argument("--method", default="SimVP", choices=["SimVP"])
            parser.add_argument("--batch_size", default=16, type=int)
            parser.add_argument("--final_div_factor", default=1e4, type=float)
            parser.add_argument("--epoch", default=None, type=int)
            parser.add_argument("--test", action="store_true")
            parser.add_argument("--seed", default=None, type=int)
            return parser

        def default_parser():
            return {"epoch": 200, "seed": 42}

        def load_config(path):
            return {name: value for name, value in runpy.run_path(path).items() if not name.startswith("__")}
        """,
    "api.py": """
        from openstl.methods import method_maps

        CALLS = []

        class BaseExperiment:
            def __init__(self, args):
                CALLS.append((args, method_maps[args.method.lower()]))

            def train(self):
                CALLS.append("train")

            def test(self):
                CALLS.append("test")
        """,
    "methods/__init__.py": "method_maps = {}",
}

_SIMVP = {
    "v0.3.0": """
        import torch

        class SimVP:
            def __init__(self, args, device, steps_per_epoch):
                self.device = device
                self.model = self._build_model(vars(args))
                self.optimizer = torch.optim.Adam(self.model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
                self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
                    self.optimizer, args.lr, total_steps=args.epoch * steps_per_epoch, final_div_factor=args.final_div_factor
                )

            def train_step(self, batch_x, batch_y):
                self.model.train()
                self.optimizer.zero_grad()
                loss = torch.nn.MSELoss()(self._predict(batch_x), batch_y)
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
                return loss.item()
        """,
    "v1.0.0": """
        import torch

        class SimVP(torch.nn.Module):
            device = "cpu"
            current_epoch = 3

            def __init__(self, **args):
                super().__init__()
                self.model = self._build_model(**args)

            def train_step(self, batch_x, batch_y):
                return torch.nn.MSELoss()(self(batch_x), batch_y)
        """,
}


def write_interface(folder, version):
    """Write the stand-in as a package `openstl` into a folder."""
    for name, text in (_FILES | {"methods/simvp.py": _SIMVP[version]}).items():
        path = folder / "openstl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
